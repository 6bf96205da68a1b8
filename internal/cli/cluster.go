package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// clusterInfo is the output of the cluster verb.
type clusterInfo struct {
	ID         string       `json:"id"`
	Controller int32        `json:"controller"`
	Brokers    []brokerInfo `json:"brokers"`
	Topics     int          `json:"topics"`
	Internal   int          `json:"internal_topics"` // of these, such as the one for committed offsets
	Partitions int          `json:"partitions"`
}

type brokerInfo struct {
	ID      int32  `json:"id"`
	Address string `json:"address"`
	Rack    string `json:"rack,omitempty"`
}

func (a *app) newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show a cluster's brokers", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(cmd.Context(), a.showCluster)
		},
	}
	cmd.AddCommand(a.newClusterAPIs(), a.newClusterLogDirs(), a.newClusterLogLevel(), a.newClusterQuorum())
	return a.addOutputFlag(a.addClientFlags(cmd))
}

func (a *app) showCluster(ctx context.Context, adm *kadm.Client) error {
	m, err := adm.Metadata(ctx)
	if err != nil {
		return fmt.Errorf("asking for the cluster: %w", err)
	}
	info := clusterInfo{ID: m.Cluster, Controller: m.Controller, Topics: len(m.Topics), Brokers: []brokerInfo{}}
	for _, t := range m.Topics {
		info.Partitions += len(t.Partitions)
		if t.IsInternal {
			info.Internal++
		}
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

// String is the text for people.
func (c clusterInfo) String() string {
	t := columns{head: []string{">BROKER", "ADDRESS", "RACK", "ROLE"}}
	for _, b := range c.Brokers {
		role := ""
		if b.ID == c.Controller {
			role = "controller"
		}
		t.addRow(strconv.Itoa(int(b.ID)), b.Address, b.Rack, role)
	}
	internal := ""
	if c.Internal > 0 { // "leat topic list" leaves them out
		internal = fmt.Sprintf(" (%s internal)", formatNumber(int64(c.Internal)))
	}
	return fmt.Sprintf("cluster %s: %s, %s in %s%s\n\n%s", c.ID, formatCount(len(c.Brokers), "broker"),
		formatCount(c.Partitions, "partition"), formatCount(c.Topics, "topic"), internal, t.String())
}

// formatCount writes a number of things, such as "1 topic" or "2 topics".
func formatCount(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return formatNumber(int64(n)) + " " + thing + "s"
}
