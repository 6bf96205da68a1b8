package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestFirstStart proves that a power cut or a kill at any call of the first start
// leaves a directory that starts.
func TestFirstStart(t *testing.T) {
	for _, kill := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			w := newWorld(t, uint64(n))
			w.crashIn = n
			if w.ending = powerCut; kill {
				w.ending = killed
			}
			w.open()
			w.append(0)
			w.s.Commit()
			w.s.keeper.checkpointNow()
			w.mu.Lock()
			if done = w.fallen == nil; done {
				w.fall()
			}
			w.mu.Unlock()
			w.recovered()
			if err := w.s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestProducers proves Kafka's rules for sequence numbers, batch by batch.
func TestProducers(t *testing.T) {
	type step struct {
		id    int64
		epoch int16
		seq   int32
		n     int
		base  record.Offset
		dup   bool
		err   error
	}
	for name, steps := range map[string][]step{
		"in order": {{1, 0, 0, 2, 0, false, nil}, {1, 0, 2, 1, 2, false, nil}},
		"retry":    {{1, 0, 0, 2, 0, false, nil}, {1, 0, 2, 1, 2, false, nil}, {1, 0, 0, 2, 0, true, nil}},
		"a retry of what is too old is out of order": {
			{1, 0, 0, 1, 0, false, nil},
			{1, 0, 1, 1, 1, false, nil},
			{1, 0, 2, 1, 2, false, nil},
			{1, 0, 3, 1, 3, false, nil},
			{1, 0, 4, 1, 4, false, nil},
			{1, 0, 5, 1, 5, false, nil},
			{1, 0, 1, 1, 1, true, nil},
			{1, 0, 0, 1, -1, false, ErrOutOfOrderSequence},
		},
		"a gap":                     {{1, 0, 0, 1, 0, false, nil}, {1, 0, 2, 1, -1, false, ErrOutOfOrderSequence}},
		"an unknown producer":       {{1, 0, 17, 1, 0, false, nil}, {1, 0, 18, 1, 1, false, nil}},
		"an older epoch":            {{1, 3, 0, 1, 0, false, nil}, {1, 2, 1, 1, -1, false, ErrProducerFenced}},
		"a newer epoch":             {{1, 0, 5, 1, 0, false, nil}, {1, 1, 0, 1, 1, false, nil}, {1, 1, 1, 1, 2, false, nil}},
		"a newer epoch, not from 0": {{1, 0, 5, 1, 0, false, nil}, {1, 1, 6, 1, -1, false, ErrOutOfOrderSequence}},
		"sequences start over":      {{1, 0, 1<<31 - 2, 2, 0, false, nil}, {1, 0, 0, 1, 2, false, nil}, {1, 0, 1<<31 - 2, 2, 0, true, nil}},
		"a batch over the end":      {{1, 0, 1<<31 - 2, 4, 0, false, nil}, {1, 0, 2, 1, 4, false, nil}},
		"two producers":             {{1, 0, 0, 1, 0, false, nil}, {2, 0, 0, 1, 1, false, nil}, {1, 0, 1, 1, 2, false, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, testConfig(vfs.NewMem(), "data"))
			l := testLog(s, 0, testOptions())
			for i, st := range steps {
				it := appendOne(t, l, produced(t, st.id, st.epoch, st.seq, st.n))
				if it.Base != st.base || it.Dup != st.dup || !errors.Is(it.Err, st.err) {
					t.Errorf("step %d: base %d, dup %v, err %v", i, it.Base, it.Dup, it.Err)
				}
			}
		})
	}
}

// TestProducersOutlive proves that the last five batches are known after a clean
// restart, and that a snapshot says the same as the log.
func TestProducersOutlive(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	s := openStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 7 {
		mustAppend(t, l, produced(t, 9, 2, int32(i), 1))
	}
	want, _ := l.Producers(math.MaxInt)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	l = testLog(s, 0, testOptions())
	got, err := l.Producers(math.MaxInt)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for i := 2; i < 7; i++ {
		if it := appendOne(t, l, produced(t, 9, 2, int32(i), 1)); !it.Dup || int(it.Base) != i {
			t.Errorf("batch %d: %+v", i, it)
		}
	}
}

// TestRetention proves that retention by time is exact to the record and by size
// to the batch, and that space is freed.
func TestRetention(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, testConfig(mem, "data"))
	o := testOptions()
	o.SegmentBytes, o.RetentionAge = 4000, time.Hour
	l := testLog(s, 0, o)
	now := time.UnixMilli(1_700_000_000_000)
	for i := range 30 { // ten records a minute apart in each batch
		var bu record.Builder
		for k := range 10 {
			bu.Append(now.Add(time.Duration(10*i+k)*time.Minute).UnixMilli(), nil, make([]byte, 50))
		}
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, b)
	}
	s.Commit()
	for _, minutes := range []int{0, 59, 60, 61, 75, 200, 359, 361} {
		s.retain(now.Add(time.Duration(minutes) * time.Minute))
		if start, _ := l.Start(); int(start) != min(max(0, minutes-60), 300) {
			t.Errorf("after %d minutes the log starts at %d", minutes, start)
		}
	}
	s.keeper.checkpointNow()
	s.keeper.removeDue(time.Now())
	if n := l.SizeOnDisk(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	mustAppend(t, l, batch(t, 0, 1, 100))
	if end, _ := l.End(); end != 301 {
		t.Errorf("it ends at %d", end)
	}

	o.RetentionAge, o.RetentionBytes = -1, 5000
	l = testLog(s, 1, o)
	size := int64(0)
	for i := range 40 {
		b := batch(t, i, 1, 400)
		size = int64(len(b))
		mustAppend(t, l, b)
	}
	s.Commit()
	s.retain(now)
	keep := (o.RetentionBytes + size - 1) / size
	if start, _ := l.Start(); int64(start) != 40-keep {
		t.Errorf("by size it starts at %d, want %d", start, 40-keep)
	}
}

// TestFullDisk proves that appends are refused while the reserve is left, that
// reads and deletions go on, that a store starts on a full disk, and takes appends
// again when there is room.
func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	cfg.Reserve = 100_000
	var said said
	cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
	mem.SetFree(1_000_000)
	s := openStore(t, cfg)
	a := testLog(s, 0, testOptions())
	n := 0
	for { // until it is refused
		it := appendOne(t, a, batch(t, n, 1, 1000))
		if errors.Is(it.Err, ErrDiskFull) {
			break
		}
		if it.Err != nil {
			t.Fatal(it.Err)
		}
		s.Commit()
		n++
	}
	if n < 100 {
		t.Fatalf("refused after %d", n)
	}
	for range 3 {
		appendOne(t, a, batch(t, n, 1, 1000))
	}
	mem.SetFree(1_000_000)
	for range 3 { // refused though bytes are free, as by a quota
		s.noteRefusal(vfs.ErrNoSpace)
	}
	if !s.IsFull() {
		t.Error("writes find no room, and it does not count as full")
	}
	if got := strings.Count(said.String(), "the disk is full"); got != 1 {
		t.Errorf("the operator was told %d times:\n%s", got, said.String())
	}
	expectValues(t, a, n)
	mem.SetFree(0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg)
	a = testLog(s, 0, testOptions())
	b := testLog(s, 1, testOptions())
	expectValues(t, a, n)
	if it := appendOne(t, b, batch(t, 0, 1, 10)); !errors.Is(it.Err, ErrDiskFull) {
		t.Errorf("an append on a full disk: %v", it.Err)
	}
	s.Delete(a.ID())
	for range 100 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now())
		if it := appendOne(t, b, batch(t, 0, 1, 10)); it.Err == nil {
			mem.SetFree(1_000_000)
			s.space.Look()
			if !strings.Contains(said.String(), "there is room on the disk again") {
				t.Errorf("nobody was told that there is room:\n%s", said.String())
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no append got through after a deletion")
}

// said is what a logger wrote.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestFirstStartOnFullDisk proves that a store starts where not even its first
// checkpoint has room, and works when there is some.
func TestFirstStartOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	mem.SetFree(0)
	cfg := testConfig(mem, "data")
	cfg.CheckpointEvery = time.Millisecond
	s := openStore(t, cfg)
	l := testLog(s, 0, testOptions())
	if it := appendOne(t, l, batch(t, 0, 1, 10)); !errors.Is(it.Err, ErrDiskFull) {
		t.Errorf("an append on a full disk: %v", it.Err)
	}
	mem.SetFree(100_000_000)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if it := appendOne(t, l, batch(t, 0, 1, 10)); it.Err == nil {
			s.Commit()
			expectValues(t, l, 1)
			return
		}
	}
	t.Error("no append got through")
}

// TestFlips proves that bits flipped in any file but the segments are healed after
// a clean stop, and that those in segments are never taken for other records.
func TestFlips(t *testing.T) {
	const n = 60
	build := func() *vfs.Mem {
		mem := vfs.NewMem()
		s := openStore(t, testConfig(mem, "data"))
		o := testOptions()
		o.SegmentBytes, o.IndexInterval = 3000, 200
		l := testLog(s, 0, o)
		for i := range n {
			mustAppend(t, l, batch(t, i, 1, 100))
			s.Commit()
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	o := testOptions()
	o.SegmentBytes, o.IndexInterval = 3000, 200
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		mem := build().KillClone(nil)
		name := flip(t, mem, rng, "data")
		cfg := testConfig(mem, "data")
		cfg.BootID = fmt.Sprint(seed % 2)
		s, err := Open(cfg)
		if err != nil {
			t.Fatalf("seed %d, %s: %v", seed, name, err)
		}
		l := testLog(s, 0, o)
		if _, isLog := segment.ParseFileName(name[len(name)-24:], segment.LogSuffix); isLog {
			readSome(t, l)
		} else {
			if start, err := l.Start(); start != 0 || err != nil {
				t.Fatalf("seed %d, %s: it starts at %d, %v, %v", seed, name, start, err, l.Fault())
			}
			expectValues(t, l, n)
			if at, ok, err := l.MaxTime(t.Context()); err != nil || !ok || at.Offset != 0 && at.Time < 1_700_000_000_000 {
				t.Errorf("seed %d, %s: %v %v %v", seed, name, at, ok, err)
			}
			mustAppend(t, l, batch(t, n, 1, 100))
		}
		if err := s.Close(); err != nil {
			t.Errorf("seed %d, %s: close: %v", seed, name, err)
		}
	}
}

// flip changes one bit of some file and returns its name.
func flip(t *testing.T, mem *vfs.Mem, rng *rand.Rand, dir string) string {
	t.Helper()
	for {
		infos, err := mem.ReadDir(dir)
		if err != nil || len(infos) == 0 {
			t.Fatal(err)
		}
		i := infos[rng.IntN(len(infos))]
		if i.Dir {
			dir += "/" + i.Name
			continue
		}
		if i.Size == 0 {
			dir = "data"
			continue
		}
		f, err := mem.Open(dir+"/"+i.Name, vfs.Existing)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		at := rng.Int64N(i.Size)
		_, err = f.ReadAt(b, at)
		b[0] ^= 1 << rng.IntN(8)
		_, err2 := f.WriteAt(b, at)
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%24s", dir+"/"+i.Name)
	}
}

// readSome reads what can be read: whole batches that pass their checksums must be right.
func readSome(t *testing.T, l *Log) {
	t.Helper()
	start, _ := l.Start()
	end, err := l.Committed()
	if err != nil {
		t.Fatal(err)
	}
	for from := start; from < end; from++ {
		c, err := l.Read(from, end, 1)
		if err != nil || c == nil {
			continue // it says that it is damaged
		}
		b := make([]byte, c.Len())
		if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		c.Release()
		one, _, err := record.Next(b)
		if err != nil || one.Verify() != nil {
			continue
		}
		if v := values(t, []record.Batch{one}); record.Offset(v[0]) != one.BaseOffset() && one.BaseOffset() == from {
			t.Fatalf("offset %d has record %d", from, v[0])
		}
	}
}

// TestKilledInPreallocated proves that a write cut short by a kill is found also
// where the file was longer before, so that its size does not tell.
func TestKilledInPreallocated(t *testing.T) {
	o := testOptions()
	o.Preallocate, o.SegmentBytes = true, 20_000
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 8))
		mem := vfs.NewMem()
		cfg := testConfig(mem, "data")
		s := openStore(t, cfg)
		l := testLog(s, 0, o)
		n := 1 + rng.IntN(4)
		for i := range n {
			mustAppend(t, l, batch(t, i, 1, 500))
			s.Commit()
		}
		s.keeper.checkpointNow() // from here on nothing is verified while the kernel lives
		l.Append(1, []Item{{Batch: batch(t, n, 1, 500)}, {Batch: batch(t, n+1, 1, 500)}})
		cfg.FS = mem.KillClone(rng)
		s = openStore(t, cfg)
		l = testLog(s, 0, o)
		end, err := l.End()
		if err != nil || int(end) < n || int(end) > n+2 {
			t.Fatalf("seed %d: it ends at %d of %d, %v", seed, end, n, err)
		}
		mustAppend(t, l, batch(t, int(end), 1, 100))
		s.Commit()
		expectValues(t, l, int(end)+1)
	}
}
