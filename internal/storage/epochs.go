package storage

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/record"
)

// epochStart says with which offset a leader's epoch began.
type epochStart struct {
	epoch record.Epoch
	start record.Offset
}

// epochs are a log's leader epochs (KIP-101), both fields rising. The slice is
// never changed in place, so that readers may keep it.
type epochs []epochStart

// begin adds an epoch that begins at an offset. An epoch that got no record gives
// way to the one that begins where it did. ok is false where it is not a later one.
func (es epochs) begin(e record.Epoch, o record.Offset) (_ epochs, ok bool) {
	n := len(es)
	if n > 0 && es[n-1].epoch >= e {
		return es, false
	}
	for n > 0 && es[n-1].start >= o {
		n--
	}
	next := make(epochs, n, n+1)
	copy(next, es)
	return append(next, epochStart{e, o}), true
}

// cut forgets epochs that begin at an offset or later.
func (es epochs) cut(end record.Offset) epochs {
	return es[:sort.Search(len(es), func(i int) bool { return es[i].start >= end }):len(es)]
}

// trim forgets epochs of which no record is left from start on.
func (es epochs) trim(start record.Offset) epochs {
	i := sort.Search(len(es), func(i int) bool { return es[i].start > start }) // the first of later ones
	if i == 0 || es[i-1].start == start && i == 1 {
		return es
	}
	next := append(epochs(nil), es[i-1:]...)
	next[0].start = start
	return next
}

// end answers for an epoch as Kafka does: itself or the largest known one below
// it, with the offset at which the next one begins, which for the latest is the
// log's end. Nothing is known of an epoch above the latest.
func (es epochs) end(e record.Epoch, end record.Offset) (record.Epoch, record.Offset) {
	i := sort.Search(len(es), func(i int) bool { return es[i].epoch > e }) // the next one
	switch {
	case e < 0 || len(es) == 0 || i == len(es) && es[i-1].epoch != e:
		return record.NoEpoch, -1
	case i == len(es):
		return e, end
	case i == 0:
		return e, es[0].start
	default:
		return es[i-1].epoch, es[i].start
	}
}

// last is the latest epoch.
func (es epochs) last() record.Epoch {
	if len(es) == 0 {
		return record.NoEpoch
	}
	return es[len(es)-1].epoch
}

// at is the epoch of the record at an offset.
func (es epochs) at(o record.Offset) record.Epoch {
	i := sort.Search(len(es), func(i int) bool { return es[i].start > o })
	if i == 0 {
		return record.NoEpoch
	}
	return es[i-1].epoch
}

const epochFile = "leader-epoch-checkpoint"

// errEpochs is returned for bytes that are no leader-epoch-checkpoint.
var errEpochs = errors.New("not a leader epoch checkpoint")

// encode is the file's content in Kafka's text format: a version, the number of
// lines, the lines.
func (es epochs) encode() []byte {
	b := fmt.Appendf(nil, "0\n%d\n", len(es))
	for _, e := range es {
		b = fmt.Appendf(b, "%d %d\n", e.epoch, e.start)
	}
	return b
}

func decodeEpochs(b []byte) (epochs, error) {
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) < 2 || lines[0] != "0" || lines[1] != strconv.Itoa(len(lines)-2) {
		return nil, fmt.Errorf("%w: its head is wrong", errEpochs)
	}
	es := make(epochs, 0, len(lines)-2)
	for _, line := range lines[2:] {
		left, right, _ := strings.Cut(line, " ")
		epoch, err := strconv.ParseInt(left, 10, 32)
		start, err2 := strconv.ParseInt(right, 10, 64)
		if err = errors.Join(err, err2); err != nil || epoch < 0 || start < 0 {
			return nil, fmt.Errorf("%w: line %q", errEpochs, line)
		}
		e := epochStart{record.Epoch(epoch), record.Offset(start)}
		if n := len(es); n > 0 && (es[n-1].epoch >= e.epoch || es[n-1].start > e.start) {
			return nil, fmt.Errorf("%w: line %q is out of order", errEpochs, line)
		}
		es = append(es, e)
	}
	return es, nil
}
