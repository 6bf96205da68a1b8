package mirror

import (
	"context"
	"net"
	"strconv"

	"github.com/leatstream/leat/internal/mirror/source"
)

// ListBrokers asks a source for its brokers, and returns their addresses, host:port, as it advertises them. It is for an agent that runs beside the source.
func ListBrokers(ctx context.Context, set *Settings, clientID string) ([]string, error) {
	cfg, err := set.sourceConfig(clientID)
	if err != nil {
		return nil, err
	}
	client, err := source.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	c, err := client.Describe(ctx, []string{})
	if err != nil {
		return nil, err
	}
	var list []string
	for i := range c.Brokers {
		list = append(list, net.JoinHostPort(c.Brokers[i].Host, strconv.Itoa(int(c.Brokers[i].Port))))
	}
	return list, nil
}
