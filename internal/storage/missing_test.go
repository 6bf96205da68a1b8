package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage/segment"
	"github.com/leatstream/leat/internal/vfs"
)

// TestMissingFilesShow proves that a log reports damage when it is first used if a file of any of
// its segments, or its directory, was removed or cut while the store was down. It reports the
// damage soon after the start even if nobody uses it, and again at a later start.
func TestMissingFilesShow(t *testing.T) {
	for which := range 6 { // the first segment, one in the middle, the last closed one, the active one, all of them, the directory
		for _, short := range []bool{false, true} {
			for _, touched := range []bool{false, true} {
				t.Run(fmt.Sprint(which, short, touched), func(t *testing.T) {
					mem, o := logOfSegments(t)
					bases := segmentsOn(t, mem)
					n := len(bases)
					harmed := [][]record.Offset{bases[:1], bases[2:3], bases[n-2 : n-1], bases[n-1:], bases, nil}[which]
					for _, base := range harmed {
						file := "data/topic-0/" + segment.FileName(base, segment.LogSuffix)
						var err error
						if short {
							err = truncate(mem, file, 100)
						} else {
							err = mem.Remove(file)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					if which == 5 {
						if err := mem.Remove("data/topic-0"); err != nil {
							t.Fatal(err)
						}
					}
					for start := range 2 {
						s := quietStore(t, testConfig(mem, "data"))
						l := testLog(s, 0, o)
						if touched {
							if _, err := l.End(); err != nil {
								t.Fatal(err)
							}
						} else {
							s.Sweep(func(LogID) bool { return true }, isNone, nil)
							s.keeper.doDueWork()
						}
						if len(s.Faults()) == 0 {
							t.Fatalf("start %d: nothing is reported", start)
						}
						expectLoss(t, s, l)
						s.keeper.checkpointNow()
						s.keeper.checkpointNow()
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// TestPutBackFileMends proves that a log can be used as before once its file has been put back.
func TestPutBackFileMends(t *testing.T) {
	mem, o := logOfSegments(t)
	base := middle(t, mem)
	file := "data/topic-0/" + segment.FileName(base, segment.LogSuffix)
	if err := mem.Rename(file, "data/elsewhere"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := quietStore(t, testConfig(mem, "data"))
		l := testLog(s, 0, o)
		if _, err := l.End(); err != nil {
			t.Fatal(err)
		}
		expectLoss(t, s, l)
		if want := fmt.Sprintf("data/topic-0/%s is missing", segment.FileName(base, segment.LogSuffix)); !strings.Contains(l.Fault().Error(), want) {
			t.Errorf("it does not say %q: %v", want, l.Fault())
		}
		s.keeper.checkpointNow()
		s.keeper.doDueWork()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := mem.Rename("data/elsewhere", file); err != nil {
		t.Fatal(err)
	}
	l := testLog(quietStore(t, testConfig(mem, "data")), 0, o)
	expectValues(t, l, 40)
	mustAppend(t, l, batch(t, 40, 1, 300))
}

// TestWholeLogsAreNotOpened proves that the search for missing files opens no log that is whole,
// even if retention and DeleteRecords removed segments. It lists each log's directory once and
// opens no file.
func TestWholeLogsAreNotOpened(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions()
	o.SegmentBytes = 1500
	const logs = 20
	s := quietStore(t, testConfig(mem, "data"))
	for n := range 30 {
		for i := range logs {
			l := testLog(s, i, o)
			mustAppend(t, l, batch(t, n, 1, 300))
		}
		s.Commit()
	}
	for i := range logs {
		l := testLog(s, i, o)
		switch i % 4 {
		case 1:
			if err := l.SetStart(record.Offset(i)); err != nil {
				t.Fatal(err)
			}
		case 2:
			o := o
			o.RetentionBytes = 4000
			l.Configure(o)
			s.retainOne(l, time.Now())
		case 3:
			if err := l.Truncate(record.Offset(5 + i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 4 {
		s.keeper.checkpointNow()
		s.keeper.removeDue(time.Now().Add(time.Hour))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	listed, opened := 0, 0
	s = quietStore(t, testConfig(vfs.NewFaulty(mem, func(op vfs.Op, name string) error {
		if strings.Contains(name, "/topic-") {
			if op == vfs.OpReadDir {
				listed++
			}
			if op == vfs.OpOpen {
				opened++
			}
		}
		return nil
	}), "data"))
	for i := range logs {
		testLog(s, i, o)
	}
	s.Sweep(func(LogID) bool { return true }, isNone, nil)
	s.keeper.doDueWork()
	if faults := s.Faults(); len(faults) > 0 || listed != logs || opened > 0 {
		t.Errorf("%d directories were listed and %d files opened, faults: %v", listed, opened, faults)
	}
}

// TestReadOfALogWithoutItsFiles proves that a read returns the fault if all files of the log are
// missing, so that other partitions of the same request are served.
func TestReadOfALogWithoutItsFiles(t *testing.T) {
	for _, gone := range []string{"files", "directory"} {
		t.Run(gone, func(t *testing.T) {
			mem, o := logOfSegments(t)
			for _, base := range segmentsOn(t, mem) {
				if err := mem.Remove("data/topic-0/" + segment.FileName(base, segment.LogSuffix)); err != nil {
					t.Fatal(err)
				}
			}
			if gone == "directory" {
				if err := mem.Remove("data/topic-0"); err != nil {
					t.Fatal(err)
				}
			}
			l := testLog(quietStore(t, testConfig(mem, "data")), 0, o)
			for range 2 {
				if c, err := l.Read(0, 10, 1<<20); !errors.Is(err, ErrFaulted) {
					t.Errorf("Read gave %v, %v", c, err)
				}
			}
		})
	}
}

// TestLostCheckpointsAreNoFaultOfALog proves that the loss of the checkpoint files alone does not
// count as a read-only log.
func TestLostCheckpointsAreNoFaultOfALog(t *testing.T) {
	mem, _ := logOfSegments(t)
	for _, f := range []string{"data/checkpoint-a", "data/checkpoint-b"} {
		if err := truncate(mem, f, 100); err != nil {
			t.Fatal(err)
		}
	}
	s := quietStore(t, testConfig(mem, "data"))
	if err := s.Damage(); err == nil || errors.Is(err, ErrFaulted) || len(s.Faults()) > 0 {
		t.Errorf("%d logs are read-only; the store lacks: %v", len(s.Faults()), err)
	}
}

// TestChangedMetadataHideNoRecords proves that a changed byte of partition.metadata does not hide
// records in silence. A checkpoint vouches for five records, and the changed id is that of another
// topic. The log may report a fault, but it may not open empty and take appends.
func TestChangedMetadataHideNoRecords(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	s := quietStore(t, cfg)
	l := testLog(s, 0, testOptions())
	for i := range 5 {
		mustAppend(t, l, batch(t, i, 1, 100))
	}
	s.Commit()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Open("data/topic-0/"+metadataFile, vfs.Existing)
	if err != nil {
		t.Fatal(err)
	}
	b := encodeMetadata(testID(0).Topic)
	at := len(b) - 5
	was := b[at]
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		b[at] = c
		if _, ok := decodeMetadata(b); ok && !isOneBitOff(b, encodeMetadata(testID(0).Topic)) && c != was {
			break
		}
	}
	if _, err := f.WriteAt(b[at:at+1], int64(at)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	s = quietStore(t, cfg)
	l = testLog(s, 0, testOptions())
	start, err := l.Start()
	if err != nil || l.Fault() != nil {
		return // the log reports the fault
	}
	it := appendOne(t, l, batch(t, 9, 1, 100))
	if start != 0 {
		t.Fatalf("the five records are gone without a fault: the log starts at %d, an append got %d, %v", start, it.Base, it.Err)
	}
}
