package cli

import "testing"

// TestLedger proves that a record counts as lost if it was acknowledged and is not, or another one is, where it
// should be; and that neither the order in which acknowledgements and readings come, nor reading again, counts.
func TestLedger(t *testing.T) {
	l := newLedger()
	f := func(lost int) {
		t.Helper()
		if got := l.countLost(); got != lost {
			t.Errorf("%d are lost, want %d", got, lost)
		}
	}
	read := func(partition int32, offset int64, sent uint64, isNew bool) {
		t.Helper()
		if got := l.noteRead(partition, offset, sent); got != isNew {
			t.Errorf("offset %d is new: %v", offset, got)
		}
	}
	l.noteAcknowledged(0, 0, 100)
	l.noteAcknowledged(0, 1, 101)
	read(0, 0, 100, true)
	read(0, 1, 101, true)
	read(0, 2, 102, true) // before its acknowledgement
	l.noteAcknowledged(0, 2, 102)
	read(0, 1, 101, false)
	l.noteAcknowledged(1, 0, 100) // of another partition, and not read yet
	f(0)
	l.noteAcknowledged(0, 3, 103)
	read(0, 4, 104, true) // 3 is not there
	f(1)
	l.noteAcknowledged(0, 5, 105)
	read(0, 5, 999, true) // another record is in its place
	f(2)
	read(0, 6, 888, true)
	l.noteAcknowledged(0, 6, 106)
	f(3)
	read(0, 8, 108, true)
	l.noteAcknowledged(0, 7, 107) // the consumer has passed it
	f(4)
	l.noteAcknowledged(0, 4, 104)
	l.noteAcknowledged(0, 8, 108)
	f(4)
	if p := l.partitions[0]; len(p.acknowledged)+len(p.read) != 0 {
		t.Errorf("it keeps %v and %v", p.acknowledged, p.read)
	}
}
