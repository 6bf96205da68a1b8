package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lane is the work of one connection: partitions that one broker leads.
type lane struct {
	addr       string
	partitions []int32
	version    int16 // of the timed requests
}

// lanes spreads partitions over connections; 0 connections is one for each
// partition. Every leader gets its share, and where there are more connections
// than partitions several use the same one.
func lanes(l *layout, connections int) []*lane {
	byLeader := map[string][]int32{}
	var leaders []string
	for p, addr := range l.leaders {
		if byLeader[addr] == nil {
			leaders = append(leaders, addr)
		}
		byLeader[addr] = append(byLeader[addr], int32(p))
	}
	if connections == 0 {
		connections = len(l.leaders)
	}
	var all []*lane
	for _, addr := range leaders {
		have := byLeader[addr]
		n := max(1, connections*len(have)/len(l.leaders))
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

// counter is what one connection has done so far. Its size keeps two of them off
// one cache line.
type counter struct {
	records, bytes, requests atomic.Int64
	_                        [104]byte
}

// crew is the connections of a run and who works on them.
type crew struct {
	sockets  []*socket
	counters []counter
	begin    chan struct{} // closed when the clock starts
	stop     atomic.Bool   // set when it ends

	mu     sync.Mutex
	err    error // the first
	closed bool  // the sockets are no more
}

// connect dials every address.
func connect(ctx context.Context, o *Options, addrs []string) (*crew, error) {
	c := &crew{counters: make([]counter, len(addrs)), begin: make(chan struct{})}
	dialer := net.Dialer{Timeout: callWithin}
	for _, a := range addrs {
		conn, err := dialer.DialContext(ctx, "tcp", a)
		if err != nil {
			c.close()
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			panic("BUG: a TCP connection is none")
		}
		s, err := newSocket(tcp, o.Congestion)
		if err != nil {
			c.close()
			return nil, err
		}
		c.sockets = append(c.sockets, s)
	}
	return c, nil
}

func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, s := range c.sockets {
		s.close()
	}
}

// fail keeps the first error and wakes everyone.
func (c *crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.stop.Store(true)
	if !c.closed {
		for _, s := range c.sockets {
			s.shutdown()
		}
	}
}

func (c *crew) total() (records, bytes, requests int64) {
	for i := range c.counters {
		records += c.counters[i].records.Load()
		bytes += c.counters[i].bytes.Load()
		requests += c.counters[i].requests.Load()
	}
	return records, bytes, requests
}

// manyConnections is from how many on a thread serves more than one. With 64 of
// them, 5 requests in flight on each, it saves 18 % of the client's CPU, and a
// third where each sends its requests by one write ("bench produce --partitions 64
// --in-flight 5" with --threads 2 and 64).
const manyConnections = 5

// threads is how many threads serve n connections.
func threads(o *Options, n int) int {
	switch {
	case !sharesThreads || o.Acks == "0": // who waits for no answer never ends a turn
		return n
	case o.Threads > 0:
		return min(o.Threads, n)
	case n >= manyConnections:
		return 2
	default:
		return n
	}
}

// work runs the jobs, each in a thread of its own, from the start of the clock
// until all have ended, and measures. After the duration (0: never) stop is set.
func (c *crew) work(ctx context.Context, o *Options, r *Result, jobs []func() error) error {
	defer c.close()
	var wg sync.WaitGroup
	for _, job := range jobs {
		wg.Go(func() {
			ownThread()
			<-c.begin
			if err := job(); err != nil {
				c.fail(err)
			}
		})
	}
	cancelled := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer cancelled()
	runtime.GC()
	resetPeak(o.PIDs)
	meter, err := startMeter(o.PIDs)
	if err != nil {
		c.fail(err)
	}
	if o.Duration > 0 {
		defer time.AfterFunc(o.Duration, func() { c.stop.Store(true) }).Stop()
	}
	quiet := make(chan struct{})
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		c.show(o, quiet)
	}()
	r.Started = time.Now().Truncate(time.Second)
	meter.begin()
	close(c.begin)
	wg.Wait()
	meter.end(r)
	close(quiet)
	<-shown
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	r.Records, r.Bytes, r.Requests = c.total()
	return meter.server(r)
}

// show draws a line about the run twice a second.
func (c *crew) show(o *Options, quiet <-chan struct{}) {
	if o.progress == nil {
		<-quiet
		return
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	before, lastRecords, lastBytes := began, int64(0), int64(0)
	for {
		select {
		case <-quiet:
			_, _ = fmt.Fprint(o.progress, "\r\x1b[K")
			return
		case now := <-tick.C:
			records, bytes, _ := c.total()
			s := now.Sub(before).Seconds()
			step := o.step
			if step != "" {
				step += ":"
			}
			_, _ = fmt.Fprintf(o.progress, "\r\x1b[K%s%5.1f s  %s  %s  %s records/s", step, now.Sub(began).Seconds(),
				sizeText(float64(bytes)), speedText(float64(bytes-lastBytes)/s), countText(float64(records-lastRecords)/s))
			before, lastRecords, lastBytes = now, records, bytes
		}
	}
}

// meter measures one stretch of time.
type meter struct {
	at                time.Time
	client, cpu       time.Duration
	written           int64
	seconds           float64
	clientEnd, cpuEnd time.Duration
	writtenEnd        int64
	err               error
	pids              []int
}

func startMeter(pids []int) (*meter, error) {
	cpu, err := processCPU(pids)
	return &meter{cpu: cpu, written: processWritten(pids), pids: pids}, err
}

func (m *meter) begin() { m.at, m.client = time.Now(), ownCPU() }

func (m *meter) end(r *Result) {
	m.stop()
	r.Seconds, r.ClientCPU = m.seconds, (m.clientEnd - m.client).Seconds()
}

func (m *meter) stop() {
	m.seconds = time.Since(m.at).Seconds()
	m.clientEnd = ownCPU()
	m.cpuEnd, m.err = processCPU(m.pids)
	m.writtenEnd = processWritten(m.pids)
}

// server adds what the servers cost.
func (m *meter) server(r *Result) (err error) {
	r.Server, err = m.servers()
	return err
}

// servers is what the servers used between begin and stop, nil where none is watched.
func (m *meter) servers() (*Server, error) {
	if len(m.pids) == 0 {
		return nil, nil //nolint:nilnil // no server is no failure
	}
	now, peak, err := processMemory(m.pids)
	if err = errors.Join(m.err, err); err != nil {
		return nil, err
	}
	return &Server{CPU: (m.cpuEnd - m.cpu).Seconds(), RSS: now, PeakRSS: peak, Written: m.writtenEnd - m.written}, nil
}

// prepare asks for the topic, makes it where that is wanted, and plans the lanes.
func prepare(ctx context.Context, o *Options, create bool, key, low, high int16) (*client, []*lane, error) {
	c, err := dialAny(ctx, o.Brokers)
	if err != nil {
		return nil, nil, err
	}
	l, err := c.topic(ctx, o, create)
	if err == nil && slices.Contains(l.leaders, "") {
		err = fmt.Errorf("topic %s has partitions without a leader", o.Topic)
	}
	var version int16
	if err == nil {
		version, err = c.pick(key, low, high)
	}
	if err != nil {
		c.close()
		return nil, nil, err
	}
	o.Partitions = len(l.leaders)
	all := lanes(l, o.Connections)
	for _, lane := range all {
		lane.version = version
	}
	o.Connections = len(all)
	return c, all, nil
}

func addresses(all []*lane) (addrs []string) {
	for _, l := range all {
		addrs = append(addrs, l.addr)
	}
	return addrs
}
