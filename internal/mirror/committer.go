package mirror

import (
	"context"
	"sync"
)

// committer commits what was appended, by one goroutine for all: what is appended while it commits shares the next commit.
type committer struct {
	commit func()
	wake   chan struct{} // of size 1; filled: something was appended

	mu     sync.Mutex // guards the fields below
	wanted uint64     // the last commit that was asked for
	done   uint64     // the last one that has ended
	moved  chan struct{}
}

func newCommitter(commit func()) *committer {
	return &committer{commit: commit, wake: make(chan struct{}, 1), moved: make(chan struct{})}
}

// want asks for a commit of what was appended until now, and returns its number.
func (c *committer) want() uint64 {
	c.mu.Lock()
	c.wanted++
	n := c.wanted
	c.mu.Unlock()
	fill(c.wake)
	return n
}

// await waits until a commit has ended.
func (c *committer) await(ctx context.Context, number uint64) {
	for {
		c.mu.Lock()
		done, moved := c.done, c.moved
		c.mu.Unlock()
		if done >= number {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

func (c *committer) run(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		n := c.wanted
		c.mu.Unlock()
		c.commit()
		c.mu.Lock()
		c.done = n
		close(c.moved)
		c.moved = make(chan struct{})
		c.mu.Unlock()
	}
}

// fill fills a channel of size 1.
func fill(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
