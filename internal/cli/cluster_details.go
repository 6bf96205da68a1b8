package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/admin"
)

// brokerAPIs are the requests that a broker serves.
type brokerAPIs struct {
	Broker int32       `json:"broker"`
	APIs   []servedAPI `json:"apis"`
}

type servedAPI struct {
	Key  int16  `json:"key"`
	Name string `json:"name"`
	Min  int16  `json:"min"`
	Max  int16  `json:"max"`
}

func (a *app) newClusterAPIs() *cobra.Command {
	return &cobra.Command{
		Use: "apis", Short: "Show which requests each broker serves, in which versions", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"versions", "api-versions"},
		RunE:       func(cmd *cobra.Command, _ []string) error { return a.withAdmin(cmd.Context(), a.showAPIs) },
	}
}

func (a *app) showAPIs(ctx context.Context, adm *kadm.Client) error {
	res, err := adm.ApiVersions(ctx)
	if err != nil {
		return fmt.Errorf("asking for API versions: %w", err)
	}
	all := []brokerAPIs{}
	for _, b := range res.Sorted() {
		if b.Err != nil {
			return answerError(fmt.Sprintf("broker %d", b.NodeID), b.Err, "")
		}
		served := brokerAPIs{Broker: b.NodeID, APIs: []servedAPI{}}
		b.EachKeySorted(func(key, low, high int16) {
			served.APIs = append(served.APIs, servedAPI{Key: key, Name: kmsg.NameForKey(key), Min: low, Max: high})
		})
		all = append(all, served)
	}
	return a.show(all, func() string {
		t := columns{head: []string{">BROKER", ">KEY", "API", ">MIN", ">MAX"}}
		for _, b := range all {
			for _, s := range b.APIs {
				t.addRow(strconv.Itoa(int(b.Broker)), strconv.Itoa(int(s.Key)), s.Name, strconv.Itoa(int(s.Min)), strconv.Itoa(int(s.Max)))
			}
		}
		return t.String()
	})
}

// logDir is a directory in which a broker keeps logs. The sizes of its file system are -1
// if the broker does not report them.
type logDir struct {
	Broker     int32  `json:"broker"`
	Dir        string `json:"dir"`
	Partitions int    `json:"partitions"`
	Bytes      int64  `json:"bytes"`
	DiskTotal  int64  `json:"disk_total"`
	DiskUsable int64  `json:"disk_usable"`
}

func (a *app) newClusterLogDirs() *cobra.Command {
	return &cobra.Command{
		Use: "log-dirs", Short: "Show brokers' data directories and the space in them", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		SuggestFor: []string{"logdirs", "disks"},
		RunE:       func(cmd *cobra.Command, _ []string) error { return a.withAdmin(cmd.Context(), a.showLogDirs) },
	}
}

func (a *app) showLogDirs(ctx context.Context, adm *kadm.Client) error {
	res, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return fmt.Errorf("asking for log directories: %w", err)
	}
	var failed []error
	all := []logDir{}
	for _, d := range res.Sorted() {
		l := logDir{Broker: d.Broker, Dir: d.Dir, Bytes: d.Size(), DiskTotal: d.TotalBytes, DiskUsable: d.UsableBytes}
		for _, partitions := range d.Topics {
			l.Partitions += len(partitions)
		}
		if d.Err != nil {
			failed = append(failed, answerError(fmt.Sprintf("broker %d, directory %s", d.Broker, d.Dir), d.Err, ""))
		}
		all = append(all, l)
	}
	err = a.show(all, func() string {
		t := columns{head: []string{">BROKER", "DIRECTORY", ">PARTITIONS", ">SIZE", ">DISK", ">USABLE"}}
		for _, l := range all {
			t.addRow(strconv.Itoa(int(l.Broker)), l.Dir, strconv.Itoa(l.Partitions), formatSize(float64(l.Bytes)), formatSizeOrDash(l.DiskTotal), formatSizeOrDash(l.DiskUsable))
		}
		return t.String()
	})
	return errors.Join(append(failed, err)...)
}

// formatSizeOrDash writes a number of bytes; a negative one is unknown.
func formatSizeOrDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return formatSize(float64(n))
}

func (a *app) newClusterQuorum() *cobra.Command {
	return &cobra.Command{
		Use: "quorum", Short: "Show the nodes that keep the cluster's metadata, and how far behind each is", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.withClient(cmd.Context(), a.showQuorum) },
	}
}

func (a *app) showQuorum(ctx context.Context, cl *kgo.Client) error {
	info, err := admin.DescribeQuorum(ctx, cl)
	if errors.Is(err, admin.ErrNotServed) {
		return fmt.Errorf("the broker on %s does not serve requests about its quorum", a.bootstrap)
	}
	if err != nil {
		return err
	}
	return a.show(info, func() string { return quorumText(info) })
}

// quorumText describes a quorum for people.
func quorumText(q *admin.Quorum) string {
	t := columns{head: []string{">NODE", "ROLE", ">END", ">LAG"}}
	for _, r := range q.Replicas {
		t.addRow(strconv.Itoa(int(r.ID)), r.Role, numberOrDash(r.End), numberOrDash(r.Lag))
	}
	return fmt.Sprintf("leader %d in epoch %d, high watermark %s\n\n%s", q.Leader, q.Epoch, formatNumber(q.HighWatermark), t.String())
}
