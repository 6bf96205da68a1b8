package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cli/format"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/record"
)

// tailExport is the output of the verb that saves a tail.
type tailExport struct {
	keptTail

	Format  string `json:"format"`
	File    string `json:"file,omitempty"`
	Batches int    `json:"batches"`
	Records int64  `json:"records"` // without markers of transactions
}

func (v tailVerbs) newTailExport() *cobra.Command {
	var t tailArguments
	var to string
	kind := "json"
	cmd := &cobra.Command{
		Use: "export TOPIC PARTITION", Short: "Write the records that a cut has taken to a file, as they were", Args: cobra.ExactArgs(2),
		SuggestFor: []string{"save", "dump", "get"},
		Long: `Write the records that a cut has taken from a partition to a file or to the standard output: as lines of JSON like those of "leat consume -o json", in which records of transactions have their state
(committed, aborted, or undecided: the transaction was open when the source lost it), or as the batches that they were, in a segment file of Kafka. Nothing changes in the cluster. The longest
of what the nodes have kept is taken, and it is said if others have more beside.

A segment file has the name that Kafka's tools want if --to names a directory: kafka-dump-log --print-data-log --files FILE shows it.`,
		Example: `  leat link tail export orders 0 --cut 3 --to lost.json
  leat link tail export orders 0 --cut 3 --as log --to /tmp/lost
  leat link tail export orders 0 --cut 3 | jq .value`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.read(args); err != nil {
				return err
			}
			if kind == "log" && to == "" && isTerminal(v.out) {
				return usagef("--as log writes bytes that are not for a terminal: name a file with --to")
			}
			return v.dial(cmd, func(_ context.Context, n *linkNode) error {
				ctx := cmd.Context() // a long tail may take longer than --timeout, which is for each answer
				tail, err := v.pickTail(ctx, n, &t, "")
				if err == nil {
					err = v.exportTail(ctx, n, tail, kind, to)
				}
				if err != nil {
					return fmt.Errorf("exporting %v: %w", &t, err)
				}
				return nil
			})
		},
	}
	t.addFlags(cmd)
	f := cmd.Flags()
	f.Int32Var(&t.node, "node", -1, "the node whose records are taken (-1: that which has the most)")
	f.StringVar(&to, "to", "", "the file, or the directory, into which the records go (default: the standard output)")
	f.Var(choice{&kind, []string{"json", "log"}}, "as", `"json" for lines of JSON, or "log" for a segment file of Kafka`)
	v.completeFlag(cmd, "as", completeWords("json", "log"))
	return v.add(cmd)
}

// exportTail writes a tail to a file, which has its name when all is there, or to the standard output.
func (v tailVerbs) exportTail(ctx context.Context, n *linkNode, t *cluster.TailStatus, kind, to string) error {
	e := &tailExport{keptTail: showTail(t), Format: kind}
	said := func() string {
		where := ""
		if e.File != "" {
			where = " to " + escapeLine(e.File)
		}
		return fmt.Sprintf("exported %s of cut %d of %s %d%s: the offsets %d to %d, as node %d has kept them\n", formatCount(int(e.Records), "record"), t.Cut, escapeLine(t.Topic), t.Partition, where, t.First, t.Last, t.Node)
	}
	if to == "" {
		if err := v.writeTail(ctx, n, t, v.out, e); err != nil {
			return err
		}
		_, _ = io.WriteString(v.err, said())
		return nil
	}
	if i, err := os.Stat(to); err == nil && i.IsDir() {
		name := fmt.Sprintf("%020d.log", t.First)
		if kind != "log" {
			name = fmt.Sprintf("%s-%d-cut-%d.json", t.Topic, t.Partition, t.Cut)
		}
		to = filepath.Join(to, name)
	}
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("there is a file %s already, which is left as it is: name another one with --to", to)
	}
	f, err := os.CreateTemp(filepath.Dir(to), ".leat-tail-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()           // it is closed, if all went well
		_ = os.Remove(f.Name()) // it has another name, if all went well
	}()
	if err := v.writeTail(ctx, n, t, f, e); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return err
	}
	e.File = to
	return v.show(e, said)
}

// writeTail writes the records of a tail.
func (v tailVerbs) writeTail(ctx context.Context, n *linkNode, t *cluster.TailStatus, to io.Writer, e *tailExport) error {
	var txns *transactions
	if e.Format != "log" {
		var err error
		if txns, err = findTransactions(ctx, v.readTail(n, t)); err != nil {
			return err
		}
	}
	w, r := bufio.NewWriterSize(to, 1<<16), v.readTail(n, t)
	for {
		b, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		e.Batches++
		if !b.Control() {
			e.Records += int64(b.Count())
		}
		if e.Format == "log" {
			_, err = w.Write(b)
		} else {
			err = writeBatchJSON(w, b, t, txns.stateOf(b))
		}
		if err != nil {
			return err
		}
	}
}

// writeBatchJSON writes the records of a batch as lines of JSON. Markers of transactions are left out.
func writeBatchJSON(w io.Writer, b record.Batch, t *cluster.TailStatus, state string) error {
	var line []byte
	return eachRecord(b, t, func(r *kgo.Record) error {
		line = format.AppendStateJSON(line[:0], r, state)
		_, err := w.Write(line)
		return err
	})
}

// eachRecord calls do for each record of a batch but markers of transactions. The record is valid during the call.
func eachRecord(b record.Batch, t *cluster.TailStatus, do func(r *kgo.Record) error) error {
	if b.Control() {
		return nil
	}
	var r record.Reader
	defer r.Close()
	for r.Reset(b, mostInflated); r.Next(); {
		of := &kgo.Record{Topic: t.Topic, Partition: t.Partition, Offset: int64(r.Record.Offset), Timestamp: time.UnixMilli(r.Record.Timestamp), Key: r.Record.Key, Value: r.Record.Value}
		for _, h := range r.Record.Headers {
			of.Headers = append(of.Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
		}
		if err := do(of); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("the records of the batch at offset %d cannot be read: %w; --as log exports the batch as it is", b.BaseOffset(), err)
	}
	return nil
}
