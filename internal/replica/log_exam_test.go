package replica

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress/memlog"
	"github.com/leatstream/leat/internal/storage"
	"github.com/leatstream/leat/internal/vfs"
)

// storedLog is a log of the storage engine as memlog.Exam examines it: each record is a batch, and
// its value is the batch's timestamp.
type storedLog struct {
	*storage.Log
	t       *testing.T
	id      storage.LogID
	fs      *vfs.Mem
	store   *storage.Store
	options storage.Options
	moved   chan struct{} // size 1: a committed end has moved since it was emptied
}

func newStoredLog(t *testing.T, segmentBytes int64) *storedLog {
	t.Helper()
	l := &storedLog{t: t, id: storage.LogID{Topic: [16]byte{7}}, fs: vfs.NewMem(), moved: make(chan struct{}, 1), options: storage.Options{
		SegmentBytes: segmentBytes, IndexInterval: 100, IndexBytes: 1 << 16, RetentionAge: -1, RetentionBytes: -1, FlushMessages: 1,
	}}
	l.open()
	return l
}

func (l *storedLog) open() {
	l.t.Helper()
	store, err := storage.Open(storage.Config{FS: l.fs, Dir: "data", Logger: slog.New(slog.DiscardHandler), Scrub: -1})
	if err != nil {
		l.t.Fatal(err)
	}
	l.store = store
	l.find()
}

// find takes the log from the store, which makes an empty one if there is none.
func (l *storedLog) find() {
	l.Log = l.store.Log(l.id, "exam", l.options, func(*storage.Log) {
		select {
		case l.moved <- struct{}{}:
		default:
		}
	})
}

func (l *storedLog) close() {
	l.t.Helper()
	l.must(l.store.Close())
}

func (l *storedLog) Lose(rng *rand.Rand) {
	fs := l.fs.Crash(rng)
	l.close()
	l.fs = fs
	l.open()
}

func (l *storedLog) Restart() {
	l.close()
	l.open()
}

func (l *storedLog) Configure(pageCache bool) {
	l.options.FlushMessages = 1
	if pageCache {
		l.options.FlushMessages = 1000
	}
	l.Log.Configure(l.options)
}

// Clear deletes the log and has another one begin at the offset. That is one of another partition, since
// the store refuses one of the same for as long as a recovery may read something of the deleted log.
func (l *storedLog) Clear(start record.Offset) error {
	number := l.CutNumber()
	l.store.Delete(l.id)
	l.id.Partition++
	l.find()
	if err := l.StartAt(start); err != nil || number == 0 {
		return err
	}
	return l.Cut(number, start) // a replica that begins anew has its log make the cuts of the metadata, which take nothing from it
}

func (l *storedLog) CutNumber() int32 {
	n, err := l.Log.CutNumber()
	l.must(err)
	return n
}

// Commit commits what was appended, and waits for that. Store.Commit alone does not wait if a round is under way, such as
// that of a checkpoint.
func (l *storedLog) Commit() {
	end := l.End()
	l.store.Commit()
	for l.Committed() < end {
		<-l.moved
	}
}

func (l *storedLog) batch(value uint64) record.Batch {
	var b record.Builder
	b.Append(int64(value), nil, nil)
	out, err := b.Build()
	l.must(err)
	return append(record.Batch(nil), out...)
}

func (l *storedLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *storedLog) Append(epoch record.Epoch, values ...uint64) error {
	items := make([]storage.Item, len(values))
	for i, v := range values {
		items[i].Batch = l.batch(v)
	}
	l.Log.Append(epoch, items)
	return firstError(items)
}

func (l *storedLog) AppendAt(at record.Offset, entries ...memlog.Entry) error {
	items := make([]storage.Item, len(entries))
	for i, e := range entries {
		items[i].Batch = l.batch(e.Value)
		items[i].Batch.SetBaseOffset(at + record.Offset(i))
		items[i].Batch.SetLeaderEpoch(e.Epoch)
	}
	l.Log.AppendAt(items)
	return firstError(items)
}

func firstError(items []storage.Item) error {
	for i := range items {
		if items[i].Err != nil {
			return items[i].Err
		}
	}
	return nil
}

// offset is a result that must not fail.
func (l *storedLog) offset(o record.Offset, err error) record.Offset {
	l.t.Helper()
	l.must(err)
	return o
}

func (l *storedLog) Start() record.Offset         { return l.offset(l.Log.Start()) }
func (l *storedLog) End() record.Offset           { return l.offset(l.Log.End()) }
func (l *storedLog) Committed() record.Offset     { return l.offset(l.Log.Committed()) }
func (l *storedLog) HighWatermark() record.Offset { return l.offset(l.Log.HighWatermark()) }

func (l *storedLog) EpochEnd(e record.Epoch) (record.Epoch, record.Offset) {
	epoch, end, err := l.Log.EpochEnd(e)
	l.must(err)
	return epoch, end
}

func (l *storedLog) Read(from record.Offset, n int) ([]memlog.Entry, error) {
	var es []memlog.Entry
	for end := l.End(); len(es) < n; {
		c, err := l.Log.Read(from, end, 1<<20)
		if err != nil || c == nil {
			return es, err
		}
		b := make([]byte, c.Len())
		_, err = c.ReadAt(b, 0)
		c.Release()
		if err != nil {
			return es, err
		}
		for len(b) > 0 {
			one, rest, err := record.Next(b)
			if err != nil {
				return es, err
			}
			es = append(es, memlog.Entry{Epoch: one.LeaderEpoch(), Value: uint64(one.BaseTimestamp())})
			from, b = one.NextOffset(), rest
		}
	}
	return es, nil
}

// TestLogPassesTheExam proves that a log of the storage engine does what the log of the simulated
// replicas does, over random operations and crashes. LEAT_TEST_SEEDS is how many times.
func TestLogPassesTheExam(t *testing.T) {
	seeds := uint64(10)
	if s := os.Getenv("LEAT_TEST_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			l := newStoredLog(t, 400)
			err := memlog.Exam(l, seed, 150)
			l.close()
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLogPassesTheScripts proves that a log of the storage engine answers the scripts of the log of
// the simulated replicas as that does.
func TestLogPassesTheScripts(t *testing.T) {
	scripts, err := memlog.Scripts(os.DirFS("progress/memlog/testdata"))
	if err != nil || len(scripts) < 3 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for name, want := range scripts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // else a checkpoint may commit what the script leaves uncommitted
				l := newStoredLog(t, 1<<20)
				got, err := memlog.RunScript(l, want)
				l.close()
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), string(got)); d != "" {
					t.Error(d)
				}
			})
		})
	}
}
