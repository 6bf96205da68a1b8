package compact

import "github.com/leatstream/leat/internal/record"

// lookahead has some records of a batch whose places in the Map are not looked at yet. These are
// anywhere in the memory, and most are in no cache: a processor that reads one at a time waits for each. It
// fetches many at once if nothing depends on what it reads, so touch reads all places before the first is used
// (BenchmarkRound).
type lookahead struct {
	records []keyed       // at most lookaheadRecords
	touched record.Offset // has no meaning: what is read has to be used
}

// keyed is a record with the hash of its key.
type keyed struct {
	record.Outline
	key sum
}

// lookaheadRecords is how many records are hashed before the places of their keys are read.
const lookaheadRecords = 64

// add adds a record. It tells whether there is no room for another one.
func (a *lookahead) add(o record.Outline, key sum) (isFull bool) {
	a.records = append(a.records, keyed{o, key})
	return len(a.records) == lookaheadRecords
}

// touch reads the places of all keys, where a search for them begins.
func (a *lookahead) touch(m *Map) {
	t := a.touched
	for i := range a.records {
		key := &a.records[i].key
		if p := m.findPart(*key); len(p.slots) > 0 {
			t ^= p.slots[scale(key.high, len(p.slots))].next
		}
	}
	a.touched = t
}
