package wan

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// letter is cargo that tells when it arrives.
type letter struct {
	number int
	clock  clock
	mu     *sync.Mutex
	all    *[]arrival
}

func (l *letter) arrive(copies int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.all = append(*l.all, arrival{bale(l.number), l.clock.now(), copies})
	return copies
}

// post is a path in a bubble of synctest, whose time passes only while all wait.
type post struct {
	*path
	mu     sync.Mutex
	all    []arrival // guarded by mu
	closed chan struct{}
	done   sync.WaitGroup
}

func newPost(s Settings) *post {
	p := &post{path: newPath(clock{time.Now()}, 1, 2), closed: make(chan struct{})}
	p.set(s)
	p.done.Go(func() { p.run(p.closed) })
	return p
}

func (p *post) end() {
	close(p.closed)
	p.done.Wait()
}

func (p *post) letter(number int) cargo { return &letter{number, p.clock, &p.mu, &p.all} }

// offerLetter offers a letter as the router does.
func (p *post) offerLetter(number int, z size) {
	if o, isDirect := p.offer(z, func() cargo { return p.letter(number) }); isDirect {
		p.reportArrival(&entry{size: z, taken: p.clock.now(), order: o}, p.letter(number).arrive(o.copies))
	}
}

func (p *post) arrivals() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// TestPathsAreOnTime proves that a path hands packets on at the moment at which they are due, whatever was due before, and at once if nothing is to wait for.
func TestPathsAreOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		p := newPost(Settings{})
		defer p.end()
		p.offerLetter(0, size{1, 100})
		if got := p.arrivals(); !slices.Equal(got, []arrival{{0, 0, 1}}) {
			t.Errorf("nothing is to wait for, and there is %v", got)
		}
		p.set(Settings{Delay: 100 * ms})
		p.offerLetter(1, size{1, 100})
		time.Sleep(60 * ms)
		p.offerLetter(2, size{1, 100})
		p.set(Settings{})
		p.offerLetter(3, size{1, 100}) // after those that are under way
		time.Sleep(time.Hour)
		p.set(Settings{Delay: 10 * ms})
		p.offerLetter(4, size{1, 100})
		time.Sleep(time.Hour)
		want := []arrival{{0, 0, 1}, {1, 100 * ms, 1}, {2, 160 * ms, 1}, {3, 160 * ms, 1}, {4, time.Hour + 70*ms, 1}}
		if got := p.arrivals(); !slices.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
		c := p.count()
		if want := (Counters{Packets: 5, Bytes: 500, Delivered: 5, DeliveredBytes: 500, Shortest: 10 * ms, Longest: 10 * ms}); c != want {
			t.Errorf("%+v, not %+v", c, want)
		}
	})
}

// TestOrderIsKeptWhileAPathIsLate proves that a packet does not go before those which are due, also if the path's goroutine has not handed them on yet, or is about to.
func TestOrderIsKeptWhileAPathIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{path: newPath(clock{time.Now()}, 1, 2)} // without its goroutine
		p.set(Settings{Delay: time.Millisecond})
		p.offerLetter(0, size{1, 100})
		p.set(Settings{})
		time.Sleep(time.Second)
		p.offerLetter(1, size{1, 100})
		batch, _, _ := p.popDue(nil)
		p.offerLetter(2, size{1, 100})
		p.handOn(batch)
		p.offerLetter(3, size{1, 100})
		rest, _, _ := p.popDue(nil)
		p.handOn(rest)
		p.popDue(nil)
		p.offerLetter(4, size{1, 100}) // goes directly
		var got []int
		for _, a := range p.arrivals() {
			got = append(got, int(a.bale))
		}
		if !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("the order is %v", got)
		}
	})
}

// TestCountersAddUp proves that each packet is counted once as what became of it.
func TestCountersAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPost(Settings{})
		defer p.end()
		number := 0
		for _, s := range []Settings{
			{},
			{Loss: 0.3, Duplicate: 0.3, Reorder: 0.3, Delay: time.Second},
			{Cut: true},
			{Up: time.Second, Down: time.Second},
			{Rate: 100_000, Queue: 20_000, Duplicate: 0.5},
			{Reset: true},
			{Delay: time.Hour},
		} {
			p.set(s)
			for range 100 {
				p.offerLetter(number, size{3, 3000})
				number++
				time.Sleep(20 * time.Millisecond)
			}
			c := p.count()
			if c.Packets+c.Duplicated != c.Delivered+c.Lost+c.Cut+c.Overflowed+c.Refused+c.UnderWay {
				t.Errorf("after %+v: %+v", s, c)
			}
		}
		c := p.count()
		if c.UnderWay != 300 || c.Refused != 300 || c.Cut < 300 || c.Cut > 600 || c.Lost == 0 || c.Overflowed == 0 || c.Duplicated == 0 || c.Overtaking == 0 {
			t.Errorf("%+v", c)
		}
		synctest.Wait()
		copies := int64(0)
		for _, a := range p.arrivals() {
			copies += int64(a.copies)
		}
		if c.Delivered != 3*copies || c.DeliveredBytes != 3000*copies {
			t.Errorf("%d arrived: %+v", copies, c)
		}
	})
}

// sluice is one end of a connection in memory.
type sluice struct {
	io.Reader
	io.Writer
	closeWrite func() error
}

func (s *sluice) CloseWrite() error { return s.closeWrite() }

// TestLinksStallInPlaceOfLosing proves in virtual time what proxies do with the bytes of a connection: each delay, cut and loss makes them later, and none is lost, doubled or out of its order.
func TestLinksStallInPlaceOfLosing(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		settings Settings
		later    map[time.Duration]Settings
		want     []time.Duration // when each of the five pieces arrives that are sent in steps of 10 ms
	}{
		"no fault":         {want: []time.Duration{0, 10 * ms, 20 * ms, 30 * ms, 40 * ms}},
		"a delay":          {settings: Settings{Delay: 100 * ms}, want: []time.Duration{100 * ms, 110 * ms, 120 * ms, 130 * ms, 140 * ms}},
		"a cut":            {later: map[time.Duration]Settings{15 * ms: {Cut: true}, time.Minute: {}}, want: []time.Duration{0, 10 * ms, time.Minute, time.Minute, time.Minute}},
		"flapping":         {settings: Settings{Up: 5 * ms, Down: 30 * ms}, want: []time.Duration{0, 35 * ms, 35 * ms, 35 * ms, 70 * ms}},
		"all is lost once": {settings: Settings{Loss: 1}, want: []time.Duration{200 * ms, 400 * ms, 600 * ms, 800 * ms, 1000 * ms}},
		"a rate":           {settings: Settings{Rate: 1520}, want: []time.Duration{100 * ms, 200 * ms, 300 * ms, 400 * ms, 500 * ms}},
		"a short queue":    {settings: Settings{Rate: 15200, Queue: 1}, want: []time.Duration{10 * ms, 20 * ms, 30 * ms, 40 * ms, 50 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPost(c.settings)
				defer p.end()
				feed := make(chan string, 5)
				l := &link{ended: make(chan struct{})}
				var mu sync.Mutex
				var got []time.Duration
				var text bytes.Buffer
				out := writerFunc(func(b []byte) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, p.clock.now())
					return text.Write(b)
				})
				var end time.Duration
				pump := newPump(l, &sluice{Reader: feedReader(feed)}, &sluice{Writer: out, closeWrite: func() error {
					end = p.clock.now()
					return nil
				}}, p.path)
				var pumping sync.WaitGroup
				pumping.Go(pump.read)
				pumping.Go(pump.write)
				for at, s := range c.later {
					time.AfterFunc(at, func() { p.set(s) })
				}
				var sending sync.WaitGroup
				sent := ""
				for i := range 5 {
					part := string(bytes.Repeat([]byte{'a' + byte(i)}, 100))
					sent += part
					sending.Go(func() {
						time.Sleep(time.Duration(i) * 10 * ms)
						feed <- part
					})
				}
				time.Sleep(time.Hour)
				sending.Wait()
				close(feed)
				pumping.Wait()
				if !slices.Equal(got, c.want) || text.String() != sent || end < time.Hour {
					t.Errorf("%v, not %v; the bytes are whole: %v; the end came at %v", got, c.want, text.String() == sent, end)
				}
				if k := p.count(); k.Packets != 6 || k.Delivered != 6 || k.UnderWay != 0 || k.Bytes != 5*152+52 {
					t.Errorf("%+v", k)
				}
			})
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// feedReader reads one text after the other, each at once.
type feedReader <-chan string

func (f feedReader) Read(b []byte) (int, error) {
	text, ok := <-f
	if !ok {
		return 0, io.EOF
	}
	return copy(b, text), nil
}
