package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// clusterInfo is what the cluster verb tells.
type clusterInfo struct {
	ID         string       `json:"id"`
	Controller int32        `json:"controller"`
	Brokers    []brokerInfo `json:"brokers"`
	Topics     int          `json:"topics"`
	Partitions int          `json:"partitions"`
}

type brokerInfo struct {
	ID      int32  `json:"id"`
	Address string `json:"address"`
	Rack    string `json:"rack,omitempty"`
}

func (a *app) cluster() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show a cluster's brokers, and more of it", Args: cobra.NoArgs, ValidArgsFunction: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admin(cmd.Context(), a.showCluster)
		},
	}
	cmd.AddCommand(a.clusterAPIs(), a.clusterLogDirs(), a.clusterLogLevel(), a.clusterQuorum())
	return a.withOutput(a.asClient(cmd))
}

func (a *app) showCluster(ctx context.Context, adm *kadm.Client) error {
	m, err := adm.Metadata(ctx)
	if err != nil {
		return fmt.Errorf("asking for the cluster: %w", err)
	}
	info := clusterInfo{ID: m.Cluster, Controller: m.Controller, Topics: len(m.Topics), Brokers: []brokerInfo{}}
	for _, t := range m.Topics {
		info.Partitions += len(t.Partitions)
	}
	for _, b := range m.Brokers {
		bi := brokerInfo{ID: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))}
		if b.Rack != nil {
			bi.Rack = *b.Rack
		}
		info.Brokers = append(info.Brokers, bi)
	}
	return a.show(info, info.String)
}

// String is the description for people.
func (c clusterInfo) String() string {
	t := columns{head: []string{">BROKER", "ADDRESS", "RACK", "ROLE"}}
	for _, b := range c.Brokers {
		role := ""
		if b.ID == c.Controller {
			role = "controller"
		}
		t.add(strconv.Itoa(int(b.ID)), b.Address, b.Rack, role)
	}
	return fmt.Sprintf("cluster %s: %s, %s in %s\n\n%s", c.ID, count(len(c.Brokers), "broker"),
		count(c.Partitions, "partition"), count(c.Topics, "topic"), t.String())
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return number(int64(n)) + " " + thing + "s"
}
