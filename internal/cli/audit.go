package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/meta"
)

func (a *app) newAudit() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("audit", "Show who did what, and check that nothing of it was changed",
		a.newAuditList(), a.newAuditTail(), a.newAuditVerify())))
}

// takeLine takes a line of an audit log; at is its place, for messages.
type takeLine func(line []byte, at string) error

// auditFileFlag adds the flag that names a file in place of the topic.
func auditFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "file", "", "read this file and the older ones of it (FILE.1, FILE.2, ...), and not the topic "+meta.AuditTopic)
}

// readAudit reads a whole audit log: a file with the older ones, or the topic.
func (a *app) readAudit(ctx context.Context, file string, take takeLine) error {
	if file != "" {
		return readAuditFiles(ctx, file, take)
	}
	return a.readAuditTopic(ctx, take)
}

// readAuditFiles reads the files of a log, the oldest one first. They may get other names meanwhile.
func readAuditFiles(ctx context.Context, path string, take takeLine) (err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	var infos []os.FileInfo
	for i := 0; ; i++ {
		f, err := os.Open(audit.OlderFile(path, i))
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			return notFoundf("there is no file %s", path)
		}
		if err != nil {
			return err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		infos = append(infos, info)
	}
	for i, f := range slices.Backward(files) {
		if i > 0 && os.SameFile(infos[i], infos[i-1]) {
			continue // it got another name between two openings
		}
		if err := readLines(ctx, f, f.Name(), i == 0, take); err != nil {
			return err
		}
	}
	return nil
}

// readLines reads the lines of a file. The last one of the newest file may have no end yet, and is left out then.
func readLines(ctx context.Context, f io.Reader, name string, isNewest bool, take takeLine) error {
	r := bufio.NewReaderSize(f, audit.MostLine+2)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := r.ReadSlice('\n')
		if isNewest && errors.Is(err, io.EOF) || len(line) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err := take(bytes.TrimSuffix(line, []byte("\n")), fmt.Sprintf("%s, line %d", name, n)); err != nil {
			return err
		}
		for errors.Is(err, bufio.ErrBufferFull) { // what was taken of it is longer than any event
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readAuditTopic reads the topic from its start to its present end.
func (a *app) readAuditTopic(ctx context.Context, take takeLine) error {
	from, to, err := a.findAuditOffsets(ctx)
	if err != nil {
		return err
	}
	for partition := range int32(len(to[meta.AuditTopic])) { // one after another, each in its order
		begin, _ := from.Lookup(meta.AuditTopic, partition)
		end, _ := to.Lookup(meta.AuditTopic, partition)
		if err := a.readAuditPartition(ctx, partition, begin.Offset, end.Offset, take); err != nil {
			return err
		}
	}
	return nil
}

// findAuditOffsets finds the first and the next offset of each partition.
func (a *app) findAuditOffsets(ctx context.Context) (from, to kadm.ListedOffsets, err error) {
	err = a.withAdmin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		if _, err := topicDetails(ctx, adm, meta.AuditTopic); err != nil {
			if errors.Is(err, errNotFound) {
				return notFoundf("this cluster has no topic %s, so that it records nothing there; leat.audit.destinations says where a node records who did what", meta.AuditTopic)
			}
			return err
		}
		if from, err = adm.ListStartOffsets(ctx, meta.AuditTopic); err == nil {
			to, err = adm.ListEndOffsets(ctx, meta.AuditTopic)
		}
		return errors.Join(err, from.Error(), to.Error())
	})
	return from, to, err
}

// auditPause is how long a read of the topic waits for records until it fails.
const auditPause = 30 * time.Second

func (a *app) readAuditPartition(ctx context.Context, partition int32, from, to int64, take takeLine) error {
	if from >= to {
		return nil
	}
	opts := []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{meta.AuditTopic: {partition: kgo.NewOffset().At(from)}}), kgo.FetchMaxWait(time.Second), kgo.KeepControlRecords()}
	return a.withBroker(ctx, a.tellPerson, opts, func(ctx context.Context, b *broker) error {
		for next := from; next < to; {
			within, cancel := context.WithTimeout(ctx, max(auditPause, a.timeout))
			fetches := b.cl.PollFetches(within)
			cancel()
			if err := findFailure(fetches); err != nil {
				return err
			}
			if fetches.NumRecords() == 0 && within.Err() != nil {
				return fmt.Errorf("the topic %s gives no records from offset %d on, though it has %d: %w", meta.AuditTopic, next, to, within.Err())
			}
			for _, r := range fetches.Records() {
				if next = r.Offset + 1; r.Offset >= to || r.Attrs.IsControl() {
					continue
				}
				if err := take(r.Value, placeOfRecord(r)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func placeOfRecord(r *kgo.Record) string {
	return fmt.Sprintf("partition %d, offset %d", r.Partition, r.Offset)
}
