// Package epoch has the leader epochs of a log and the offsets at which they began (KIP-101).
// A List has all of a log's epochs, and is encoded as Kafka's leader-epoch-checkpoint file.
//
// The file is text: the version 0, the number of lines, and a line "epoch offset" for each.
// A List is never changed in place, so any goroutine may read it and keep it.
package epoch

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/record"
)

// Start is a leader epoch and the offset at which it began.
type Start struct {
	Epoch  record.Epoch
	Offset record.Offset
}

// List is a log's leader epochs. Epochs and offsets rise.
type List []Start

// Begin adds an epoch that begins at an offset, and drops earlier ones without records before
// that offset. ok is false if e is not later than the last epoch.
func (es List) Begin(e record.Epoch, o record.Offset) (_ List, ok bool) {
	n := len(es)
	if n > 0 && es[n-1].Epoch >= e {
		return es, false
	}
	for n > 0 && es[n-1].Offset >= o {
		n--
	}
	next := make(List, n, n+1)
	copy(next, es)
	return append(next, Start{e, o}), true
}

// Cut drops the epochs that begin at end or later.
func (es List) Cut(end record.Offset) List {
	return es[:sort.Search(len(es), func(i int) bool { return es[i].Offset >= end }):len(es)]
}

// Trim drops the epochs all of whose records are before start.
func (es List) Trim(start record.Offset) List {
	i := sort.Search(len(es), func(i int) bool { return es[i].Offset > start }) // the first of later ones
	if i == 0 || es[i-1].Offset == start && i == 1 {
		return es
	}
	next := append(List(nil), es[i-1:]...)
	next[0].Offset = start
	return next
}

// End finds the end of an epoch as Kafka does. It returns e, or the largest epoch of the log
// below it, and the offset at which the next epoch begins, which is the log's end for the last
// one. It returns NoEpoch for an epoch after the last one.
func (es List) End(e record.Epoch, end record.Offset) (record.Epoch, record.Offset) {
	i := sort.Search(len(es), func(i int) bool { return es[i].Epoch > e }) // the next one
	switch {
	case e < 0 || len(es) == 0 || i == len(es) && es[i-1].Epoch != e:
		return record.NoEpoch, -1
	case i == len(es):
		return e, end
	case i == 0:
		return e, es[0].Offset
	default:
		return es[i-1].Epoch, es[i].Offset
	}
}

// Last is the latest epoch.
func (es List) Last() record.Epoch {
	if len(es) == 0 {
		return record.NoEpoch
	}
	return es[len(es)-1].Epoch
}

// At is the epoch of the record at an offset.
func (es List) At(o record.Offset) record.Epoch {
	i := sort.Search(len(es), func(i int) bool { return es[i].Offset > o })
	if i == 0 {
		return record.NoEpoch
	}
	return es[i-1].Epoch
}

// FileName is the name of the file.
const FileName = "leader-epoch-checkpoint"

// ErrNotEpochs says that bytes are not a leader-epoch-checkpoint.
var ErrNotEpochs = errors.New("not a leader epoch checkpoint")

// Encode encodes the file's content.
func (es List) Encode() []byte {
	b := fmt.Appendf(nil, "0\n%d\n", len(es))
	for _, e := range es {
		b = fmt.Appendf(b, "%d %d\n", e.Epoch, e.Offset)
	}
	return b
}

// Decode decodes the file's content.
func Decode(b []byte) (List, error) {
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) < 2 || lines[0] != "0" || lines[1] != strconv.Itoa(len(lines)-2) {
		return nil, fmt.Errorf("%w: its head is wrong", ErrNotEpochs)
	}
	es := make(List, 0, len(lines)-2)
	for _, line := range lines[2:] {
		left, right, _ := strings.Cut(line, " ")
		epoch, err := strconv.ParseInt(left, 10, 32)
		start, err2 := strconv.ParseInt(right, 10, 64)
		if err = errors.Join(err, err2); err != nil || epoch < 0 || start < 0 {
			return nil, fmt.Errorf("%w: line %q", ErrNotEpochs, line)
		}
		e := Start{record.Epoch(epoch), record.Offset(start)}
		if n := len(es); n > 0 && (es[n-1].Epoch >= e.Epoch || es[n-1].Offset > e.Offset) {
			return nil, fmt.Errorf("%w: line %q is out of order", ErrNotEpochs, line)
		}
		es = append(es, e)
	}
	return es, nil
}
