package producer

import "slices"

const (
	chunkLen = 64 // entries of a chunk
	scanned  = 8  // a table of so few entries needs no index
)

// table is a set of producers, in any order. It grows without copying what it has, and shrinks
// when entries are removed, since a log may have very many producers for a while. Its entries
// have no pointers, so that the garbage collector need not look at them.
type table struct {
	chunks  [][]entry       // all but the last one are full
	n       int             // entries
	index   map[int64]int32 // of a producer id; nil while there are few
	indexed int             // the most entries that index had: a map does not shrink
}

func (t *table) at(i int) *entry { return &t.chunks[i/chunkLen][i%chunkLen] }

// find finds a producer's entry; nil: it is unknown. It is valid until the table changes.
func (t *table) find(id int64) *entry {
	if t.index != nil {
		if i, ok := t.index[id]; ok {
			return t.at(int(i))
		}
		return nil
	}
	for i := range t.n {
		if p := t.at(i); p.id == id {
			return p
		}
	}
	return nil
}

// add adds the entry of a producer that is unknown.
func (t *table) add(e entry) *entry {
	if t.n == len(t.chunks)*chunkLen {
		t.chunks = append(t.chunks, nil)
	}
	c := &t.chunks[len(t.chunks)-1]
	if len(*c) == cap(*c) {
		size := min(chunkLen, len(*c)+t.n/8+1) // most logs have few producers
		*c = append(make([]entry, 0, size), *c...)
	}
	*c = append(*c, e)
	t.n++
	switch {
	case t.index != nil:
		t.index[e.id] = int32(t.n - 1)
		t.indexed = max(t.indexed, t.n)
	case t.n > scanned:
		t.makeIndex()
	}
	return t.at(t.n - 1)
}

// removeLast removes the entry that was added last.
func (t *table) removeLast() {
	delete(t.index, t.at(t.n-1).id)
	t.n--
	t.cutChunks()
}

// keep removes the entries for which a function returns false. The others stay in their order.
func (t *table) keep(isKept func(p *entry) bool) {
	n := 0
	for i := range t.n {
		p := t.at(i)
		if !isKept(p) {
			delete(t.index, p.id)
			continue
		}
		if i != n {
			*t.at(n) = *p
			if t.index != nil {
				t.index[p.id] = int32(n)
			}
		}
		n++
	}
	t.n = n
	t.cutChunks()
	switch {
	case n <= scanned:
		t.index, t.indexed = nil, 0
	case n <= t.indexed/2:
		t.makeIndex()
	}
}

// cutChunks gives back the room of entries that were removed.
func (t *table) cutChunks() {
	used := (t.n + chunkLen - 1) / chunkLen
	if used < len(t.chunks) {
		t.chunks = slices.Clone(t.chunks[:used])
	}
	if used == 0 {
		return
	}
	last := &t.chunks[used-1]
	*last = (*last)[:t.n-(used-1)*chunkLen]
	if cap(*last)-len(*last) > t.n/8 {
		*last = slices.Clone(*last)
	}
}

func (t *table) makeIndex() {
	t.index, t.indexed = make(map[int64]int32, t.n), t.n
	for i := range t.n {
		t.index[t.at(i).id] = int32(i)
	}
}
