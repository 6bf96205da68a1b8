package quorum

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/internal/vfs"
)

// TestFailuresShowBeforeTheyAreAnswered proves that a caller whose proposal fails finds the
// reason in the status at once. The proposal's channel has no buffer, so that the loop waits
// in its answer.
func TestFailuresShowBeforeTheyAreAnswered(t *testing.T) {
	for _, c := range []struct {
		err  error
		op   vfs.Op
		want State
	}{
		{errors.New("medium error"), vfs.OpSync, Faulted},
		{vfs.ErrNoSpace, vfs.OpWrite, Full},
	} {
		t.Run(c.want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				n, _ := start(t, vfs.NewFaulty(newFS(), func(op vfs.Op, _ string) error {
					if broken.Load() && op == c.op {
						return c.err
					}
					return nil
				}))
				broken.Store(true)
				term, _ := n.Leading()
				size := 1 // a small one is written into the present file, a large one needs a new file
				if c.want == Full {
					size = int(small.segment)
				}
				p := &proposal{term: term, data: wrapProposal(term, make([]byte, size)), done: make(chan error)}
				n.props <- p
				synctest.Wait()
				if got := n.Status().State; got != c.want {
					t.Errorf("before the answer the state is %v, want %v", got, c.want)
				}
				<-p.done
			})
		})
	}
}

// TestSpareIsMadeBesideTheLoop proves that proposals go on while the log's next file is made,
// and that the log waits for that file when it needs one, and does not make another.
func TestSpareIsMadeBesideTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		made := 0
		fs := newFS()
		n, m := start(t, vfs.NewFaulty(fs, func(op vfs.Op, name string) error {
			if op == vfs.OpSync && strings.HasSuffix(name, spareName+tmpSuffix) {
				made++
				<-release
			}
			return nil
		}))
		acked := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ; acked < 30; acked++ {
				if err := put(t.Context(), n, fmt.Appendf(nil, "line %d", acked)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		synctest.Wait()
		if got := len(m.state()); made != 1 || got < 3 || got == 30 {
			t.Errorf("with %d spare files under way %d proposals were applied: want some, until the file is full", made, got)
		}
		close(release)
		<-done
		if diff := cmp.Diff(count(0, 30), m.state()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestTheEndShowsBeforeItIsAnswered proves that a caller whose proposal fails because the node
// ends finds the node's state and the reason at once: after an entry that cannot be applied, and
// after Close, while another entry is being applied.
func TestTheEndShowsBeforeItIsAnswered(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		end   func(n *Node)
		want  error
	}{
		{"not applied", []string{"poison"}, func(*Node) {}, ErrNotApplied},
		{"closed", []string{"slow", "waits"}, func(n *Node) { n.closing.Do(func() { close(n.stop) }) }, ErrNotLeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan struct{})
				m := &machine{}
				cfg := config(newFS(), m)
				cfg.Apply = func(u Update) error {
					if len(u.Entries) > 0 && string(u.Entries[0].Data) == "slow" {
						<-goOn
					}
					return m.apply(u)
				}
				n, err := openTuned(cfg, small)
				if err != nil {
					t.Fatal(err)
				}
				term, _ := n.Leading()
				var last *proposal
				for _, line := range c.lines {
					last = &proposal{term: term, data: wrapProposal(term, []byte(line)), done: make(chan error)}
					if line == "slow" {
						last.done = make(chan error, 1)
					}
					n.props <- last
					synctest.Wait()
				}
				c.end(n)
				synctest.Wait()
				if s := n.Status().State; s != Ended || !errors.Is(n.Err(), c.want) {
					t.Errorf("before the answer the node is %v: %v", s, n.Err())
				}
				if err := <-last.done; !errors.Is(err, c.want) {
					t.Errorf("the answer is %v", err)
				}
				close(goOn)
				<-n.Done()
			})
		})
	}
}
