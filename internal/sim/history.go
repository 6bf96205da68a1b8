package sim

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// note is something that happened. Numbers and names are kept as they are, and made text only if
// somebody reads them.
type note struct {
	at   time.Duration
	what string // with up to two verbs, for a and b
	text string // more than that, where numbers are not enough
	node int32  // 0: no node
	peer int32  // another node, or a client; 0: none
	part int16  // a partition's number in the cluster, counted from 1; 0: none; onNetwork: a message
	a, b int64
}

// onNetwork is the partition of notes about messages.
const onNetwork = -1

// history is all that happened to a cluster.
type history struct {
	notes  []note
	digest uint64 // of all notes
}

// add adds a note.
func (h *history) add(n note) {
	h.notes = append(h.notes, n)
	d := mix(h.digest, uint64(n.at))
	d = mixText(d, n.what)
	d = mixText(d, n.text)
	d = mix(d, uint64(uint32(n.node))<<32|uint64(uint32(n.peer)))
	d = mix(d, uint64(n.part))
	h.digest = mix(mix(d, uint64(n.a)), uint64(n.b))
}

func mix(d, x uint64) uint64 {
	d = (d ^ x) * 0x9e3779b97f4a7c15
	return d ^ d>>29
}

func mixText(d uint64, s string) uint64 {
	for i := range len(s) {
		d = (d ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(d, uint64(len(s)))
}

// write writes the last notes of a partition, with those that concern no partition but without
// messages; all partitions and messages if part is 0.
func (h *history) write(w io.Writer, part int16, last int, names []string) error {
	var chosen []*note
	for i := len(h.notes) - 1; i >= 0 && len(chosen) < last; i-- {
		if n := &h.notes[i]; part == 0 || n.part == part || n.part == 0 {
			chosen = append(chosen, n)
		}
	}
	for _, n := range slices.Backward(chosen) {
		if _, err := io.WriteString(w, n.format(names)); err != nil {
			return err
		}
	}
	return nil
}

// format makes a line of a note. names are those of the partitions.
func (n *note) format(names []string) string {
	b := fmt.Appendf(nil, "%10.3f ms ", float64(n.at)/float64(time.Millisecond))
	if n.node != 0 {
		b = fmt.Appendf(b, " %d", n.node)
	}
	if n.peer != 0 {
		b = fmt.Appendf(b, ">%d", n.peer)
	}
	if n.part > 0 {
		b = fmt.Appendf(b, " %s", names[n.part-1])
	}
	numbers := []any{n.a, n.b}
	b = fmt.Appendf(append(b, ' '), n.what, numbers[:strings.Count(n.what, "%")]...)
	if n.text != "" {
		b = fmt.Appendf(b, " %s", n.text)
	}
	return string(append(b, '\n'))
}
