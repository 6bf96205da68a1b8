package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
)

// fileOffset is a line of a file of offsets. If it has no group, it is for the only group that the
// verb is about.
type fileOffset struct {
	group     string
	topic     string
	partition int32
	offset    int64
}

// exportedOffset is an element of the JSON of group export.
type exportedOffset struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (a *app) newGroupExport() *cobra.Command {
	var c groupChoice
	return a.addGroupArguments(&cobra.Command{
		Use: "export GROUP...", Short: "Write groups' committed offsets as CSV, for group reset --from-file",
		Long: `Write groups' committed offsets as CSV, for "leat group reset --from-file" and Kafka's tools:
lines of topic,partition,offset for one group, and of group,topic,partition,offset for several.`,
		Example: `  leat group export billing > offsets.csv
  leat group export --all-groups > offsets.csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error { return a.exportGroups(ctx, cl, c, args) })
		},
	}, &c)
}

func (a *app) exportGroups(ctx context.Context, cl *kgo.Client, c groupChoice, names []string) error {
	entries, missing, err := c.findSomeGroups(ctx, cl, names)
	if err != nil {
		return err
	}
	var groups []string
	for _, e := range entries {
		if e.Kind != admin.Share { // a share group has no committed offsets
			groups = append(groups, e.Name)
		}
	}
	commits, err := admin.CommittedOffsets(ctx, kadm.NewClient(cl), groups...)
	if err != nil {
		return err
	}
	all := []exportedOffset{}
	for _, g := range groups {
		for _, o := range commits[g].Sorted() {
			all = append(all, exportedOffset{Group: g, Topic: o.Topic, Partition: o.Partition, Offset: o.At})
		}
	}
	if a.output == "json" {
		return errors.Join(missing, a.show(all, nil))
	}
	var sb strings.Builder
	w := csv.NewWriter(&sb)
	for _, o := range all {
		cells := []string{o.Group, o.Topic, strconv.Itoa(int(o.Partition)), strconv.FormatInt(o.Offset, 10)}
		if len(names) == 1 {
			cells = cells[1:]
		}
		if err := w.Write(cells); err != nil {
			return err
		}
	}
	w.Flush()
	return errors.Join(missing, w.Error(), a.writeText(sb.String(), `\x%02x`))
}

// readOffsets reads a file of offsets for the named groups, or for all groups in the file if none is
// named. The name - stands for the standard input.
func (a *app) readOffsets(name string, groups []string) ([]fileOffset, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, notFoundf("file %s does not exist", name)
		case err != nil:
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.TrimLeadingSpace = -1, true
	all := []fileOffset{}
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if wrong, ok := errors.AsType[*csv.ParseError](err); ok {
			return nil, fmt.Errorf("%s, line %d: a quote is missing or misplaced: nothing was changed", name, wrong.Line)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		line, _ := r.FieldPos(0)
		o, why := parseOffset(cells, groups)
		if why != "" {
			return nil, fmt.Errorf("%s, line %d: %s: nothing was changed", name, line, why)
		}
		all = append(all, o)
	}
}

// parseOffset parses the cells of a line. If it cannot, it says why.
func parseOffset(cells, groups []string) (o fileOffset, why string) {
	switch len(cells) {
	case 3:
		if len(groups) != 1 {
			return o, "a line without a group needs exactly one named group"
		}
	case 4:
		o.group, cells = cells[0], cells[1:]
		if len(groups) > 0 && !slices.Contains(groups, o.group) {
			return o, fmt.Sprintf("group %s is not one of the named groups", o.group)
		}
	default:
		return o, "a line must be topic,partition,offset or group,topic,partition,offset"
	}
	o.topic = cells[0]
	partition, partitionErr := strconv.ParseUint(strings.TrimSpace(cells[1]), 10, 31)
	offset, offsetErr := strconv.ParseUint(strings.TrimSpace(cells[2]), 10, 63)
	if partitionErr != nil || offsetErr != nil {
		return o, "partition and offset must be whole numbers"
	}
	o.partition, o.offset = int32(partition), int64(offset)
	return o, ""
}
