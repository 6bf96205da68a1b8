package broker

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/vfs"
)

// TestWaitingCommandsKeepNoBuffer proves that requests which wait for the memory of their answers
// hold no memory for requests: with a few hundred of them nobody could send a request.
func TestWaitingCommandsKeepNoBuffer(t *testing.T) {
	const conns = 50
	g := newWholeRig(t, budget.MinBytes)
	taken := takeAll(g.work, budget.Data)
	for i := range conns {
		if i%2 == 0 {
			dial(t, g.addr).send(at(4, kmsg.NewPtrListGroupsRequest()))
		} else {
			dial(t, g.addr).send(at(4, kmsg.NewPtrDescribeLogDirsRequest()))
		}
	}
	eventually(t, "all requests wait", func() bool { return g.work.Usage(budget.Data).Waiting == conns })
	if n := g.stats.RequestMemory(); n > 0 {
		t.Errorf("they hold %d bytes of the memory for requests", n)
	}
	for i := range taken {
		taken[i].Release()
	}
}

// takeAll reserves all memory of a class.
func takeAll(work *budget.Budget, c budget.Class) (taken []budget.Reservation) {
	for n := work.Most(c); n > 0; {
		if r, ok := work.TryReserve(c, n); ok {
			taken = append(taken, r)
		} else {
			n /= 2
		}
	}
	return taken
}

// TestLogDirsAreMeasuredInTurns proves that the sizes of partitions are measured only while the
// request has its turn on a processor, and that other work has its own between two directories.
func TestLogDirsAreMeasuredInTurns(t *testing.T) {
	const partitions = 100
	fs := &countedFS{FS: vfs.NewMem()}
	g := newAdminRigOn(t, fs, nil)
	g.topic("t", partitions)
	c := dial(t, g.addr)
	var before int64
	var other sync.WaitGroup
	fs.reads.Store(0)
	g.work.Enter(budget.Command)
	c.send(at(4, kmsg.NewPtrDescribeLogDirsRequest()))
	eventually(t, "the request waits for its turn", func() bool { return g.work.WaitingTurns() == 1 })
	if n := fs.reads.Load(); n > 0 {
		t.Errorf("%d directories were read before", n)
	}
	begin := func() {
		other.Go(func() {
			g.work.Enter(budget.Command)
			before = fs.reads.Load()
			g.work.Leave()
		})
		eventually(t, "another one waits", func() bool { return g.work.WaitingTurns() == 1 })
	}
	fs.then.Store(&begin)
	g.work.Leave()
	resp, _ := c.receive(at(4, kmsg.NewPtrDescribeLogDirsRequest())).(*kmsg.DescribeLogDirsResponse)
	if n := len(resp.Dirs[0].Topics[0].Partitions); n != partitions {
		t.Errorf("%d partitions are listed", n)
	}
	other.Wait()
	if all := fs.reads.Load(); before < 1 || before >= all || all < partitions {
		t.Errorf("the other work had its turn after %d of %d directories", before, all)
	}
}

// countedFS counts the directories that are read.
type countedFS struct {
	vfs.FS

	reads atomic.Int64
	then  atomic.Pointer[func()] // called when the next one was read
}

func (fs *countedFS) ReadDir(dir string) ([]vfs.Info, error) {
	fs.reads.Add(1)
	if then := fs.then.Swap(nil); then != nil {
		(*then)()
	}
	return fs.FS.ReadDir(dir)
}
