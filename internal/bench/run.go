package bench

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/internal/bench/socket"
)

// lane is the work of one connection: partitions that one broker leads.
type lane struct {
	addr       string
	partitions []int32
	version    int16 // of the timed requests
}

// planLanes spreads partitions over connections; 0 connections means one for each partition.
// Each leader gets connections in proportion to its partitions. If there are more connections
// than partitions, several have the same partition.
func planLanes(l *client.Layout, connections int) []*lane {
	byLeader := map[string][]int32{}
	var leaders []string
	for p, addr := range l.Leaders {
		if byLeader[addr] == nil {
			leaders = append(leaders, addr)
		}
		byLeader[addr] = append(byLeader[addr], int32(p))
	}
	if connections == 0 {
		connections = len(l.Leaders)
	}
	var all []*lane
	for _, addr := range leaders {
		have := byLeader[addr]
		n := max(1, connections*len(have)/len(l.Leaders))
		mine := make([]*lane, n)
		for i := range mine {
			mine[i] = &lane{addr: addr}
			if i >= len(have) {
				mine[i].partitions = []int32{have[i%len(have)]}
			}
		}
		for i, p := range have {
			mine[i%n].partitions = append(mine[i%n].partitions, p)
		}
		all = append(all, mine...)
	}
	return all
}

func addressesOf(all []*lane) (addrs []string) {
	for _, l := range all {
		addrs = append(addrs, l.addr)
	}
	return addrs
}

// planRun finds the topic's leaders and plans the lanes. Their requests have the largest version
// of the API key between low and high that the broker serves.
func planRun(ctx context.Context, o *Options, key, low, high int16) ([]*lane, error) {
	c, err := client.DialAny(ctx, o.Brokers)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l, err := c.FindTopic(ctx, o.Topic)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", o.Topic, err)
	}
	if have := len(l.Leaders); o.Partitions > have {
		return nil, optionErrorf("topic %s has %s: use --partitions %d, or another --topic", o.Topic, FormatCounted(have, "partition"), have)
	}
	if o.Partitions > 0 {
		l.Leaders = l.Leaders[:o.Partitions]
	}
	if slices.Contains(l.Leaders, "") {
		return nil, fmt.Errorf("topic %s has partitions without a leader", o.Topic)
	}
	version, err := c.PickVersion(key, low, high)
	if err != nil {
		return nil, err
	}
	o.Partitions = len(l.Leaders)
	all := planLanes(l, o.Connections)
	for _, lane := range all {
		lane.version = version
	}
	o.Connections = len(all)
	if err := checkOpenFiles(len(all)); err != nil {
		return nil, err
	}
	return all, nil
}

// Counter counts the work of one connection so far. Its size keeps any two of them on
// different cache lines.
type Counter struct {
	Records, Bytes, Requests atomic.Int64
	_                        [104]byte
}

// Run is one measurement: its connections, and the jobs that use them until they have ended
// or the run is stopped. Connect makes it, and Work may be called once:
//
//	connected --Work--> working --duration over--> stopping --all jobs ended--> closed
//	    |                  '-------Fail------------> failed ---all jobs ended----^
//	    '----------------------------Close---------------------------------------^
//
// A job calls Stopped from time to time. Fail wakes the jobs that wait for answers.
type Run struct {
	Sockets  []*socket.Socket // in the order of Connect's addresses
	Counters []Counter        // one for each socket

	begin chan struct{} // closed when the clock starts
	stop  atomic.Bool   // jobs are to end

	mu     sync.Mutex
	err    error // guarded by mu: the first failure
	closed bool  // guarded by mu: the sockets are closed
}

// Connect dials every address.
func Connect(ctx context.Context, o *Options, addrs []string) (*Run, error) {
	r := &Run{Counters: make([]Counter, len(addrs)), begin: make(chan struct{})}
	dialer := net.Dialer{Timeout: client.DialWithin}
	for _, a := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", a)
		if err != nil {
			r.Close()
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			panic("BUG: a dialled TCP connection has another type")
		}
		s, err := socket.New(tcp, o.Congestion)
		if err != nil {
			r.Close()
			return nil, err
		}
		r.Sockets = append(r.Sockets, s)
		if answered := client.Watch(ctx); answered != nil {
			answered() // thousands of connections take longer than a broker may be silent
		}
	}
	return r, nil
}

// Close closes the sockets of a run. Work does it too.
func (r *Run) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.Sockets {
		s.Close()
	}
}

// Stopped tells whether jobs are to end. Any job may call it.
func (r *Run) Stopped() bool { return r.stop.Load() }

// Fail ends all jobs. The first error is that of the run. Any goroutine may call it.
func (r *Run) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.stop.Store(true)
	if !r.closed {
		for _, s := range r.Sockets {
			s.Shutdown()
		}
	}
}

// Work starts the clock, runs the jobs, each in a thread of its own, until all have ended, and
// writes into the result how much they did. After the options' duration (0: never) it stops
// the run.
func (r *Run) Work(ctx context.Context, o *Options, result *Result, jobs []func() error) error {
	defer r.Close()
	var wg sync.WaitGroup
	for _, job := range jobs {
		wg.Go(func() {
			socket.OwnThread()
			<-r.begin
			if err := job(); err != nil {
				r.Fail(err)
			}
		})
	}
	cancelled := context.AfterFunc(ctx, func() { r.Fail(ctx.Err()) })
	defer cancelled()
	runtime.GC()
	process.ResetPeak(o.PIDs)
	meter, err := process.Start(o.PIDs)
	if err != nil {
		r.Fail(err)
		close(r.begin)
		wg.Wait()
		return err
	}
	if o.Duration > 0 {
		defer time.AfterFunc(o.Duration, func() { r.stop.Store(true) }).Stop()
	}
	ended := make(chan struct{})
	var display sync.WaitGroup
	if o.Progress != nil {
		display.Go(func() { r.showProgress(o, ended) })
	}
	if answered := client.Watch(ctx); answered != nil {
		display.Go(func() { r.noteAnswers(answered, ended) })
	}
	result.Started = time.Now().Truncate(time.Second)
	meter.Begin()
	close(r.begin)
	wg.Wait()
	meter.End()
	close(ended)
	display.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	result.Records, result.Bytes, result.Requests = r.sumCounters()
	result.Seconds, result.ClientCPU = meter.Seconds, meter.OwnCPU
	result.Server, err = meter.Usage()
	return err
}

// sumCounters is the work of all connections so far.
func (r *Run) sumCounters() (records, bytes, requests int64) {
	for i := range r.Counters {
		records += r.Counters[i].Records.Load()
		bytes += r.Counters[i].Bytes.Load()
		requests += r.Counters[i].Requests.Load()
	}
	return records, bytes, requests
}

// noteAnswers calls answered (see client.WithWatch) as long as answers come, until the run has
// ended.
func (r *Run) noteAnswers(answered func(), ended <-chan struct{}) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := int64(-1)
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if _, _, requests := r.sumCounters(); requests != last {
			answered()
			last = requests
		}
	}
}

// showProgress draws a line about the run twice a second until it has ended.
func (r *Run) showProgress(o *Options, ended <-chan struct{}) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	before, lastRecords, lastBytes := began, int64(0), int64(0)
	for {
		select {
		case <-ended:
			_, _ = fmt.Fprint(o.Progress, "\r\x1b[K")
			return
		case now := <-tick.C:
			records, bytes, _ := r.sumCounters()
			s := now.Sub(before).Seconds()
			_, _ = fmt.Fprintf(o.Progress, "\r\x1b[K%5.1f s  %s  %s/s  %s records/s", now.Sub(began).Seconds(),
				FormatSize(float64(bytes)), FormatSize(float64(bytes-lastBytes)/s), FormatNumber(float64(records-lastRecords)/s))
			before, lastRecords, lastBytes = now, records, bytes
		}
	}
}
