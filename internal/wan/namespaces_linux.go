package wan

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// killTime is how long the processes of a site may take to end after they were killed.
const killTime = 10 * time.Second

// namespaces are the means of networks with a namespace for each site. All packets that leave a site come out of its device, and are carried to the device of another one.
type namespaces struct {
	network *Network
	places  []*place
	frames  framePool
}

// place is the namespace of a site.
type place struct {
	thread *thread
	device *device
	isHere bool // the namespace is that of this process

	mu      sync.Mutex
	singles map[int]bool // guarded by mu: the sites to which packets have to come one by one
}

func newNamespaces(n *Network, c *Config) (*namespaces, error) {
	m := &namespaces{network: n}
	for i, name := range c.Sites {
		p := &place{isHere: name == c.Here, singles: map[int]bool{}}
		var err error
		if p.thread, err = startThread(!p.isHere); err == nil {
			m.places = append(m.places, p)
			err = p.thread.do(func() (err error) {
				p.device, err = openDevice(i, m.address(i), c.MTU)
				return err
			})
		}
		if err != nil {
			return nil, errors.Join(explain(err), m.close())
		}
	}
	for i := range m.places {
		n.running.Go(func() { m.carry(i) })
	}
	return m, nil
}

// explain tells that a kind of network is not available here from other errors.
func explain(err error) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func (*namespaces) address(site int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 78, 0, byte(site + 1)})
}

// prepare has the device of the sender hand over single packets, if the settings need that.
func (m *namespaces) prepare(from, to int, s Settings) Settings {
	p := m.places[from]
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.singles) > 0
	delete(p.singles, to)
	if s.needsSinglePackets() {
		p.singles[to] = true
	}
	if after := len(p.singles) > 0; after != before {
		if err := p.device.offload(!after); err != nil && !m.network.isClosed() {
			panic("BUG: a device refuses what it took when it was made: " + err.Error())
		}
	}
	return s
}

func (m *namespaces) listen(ctx context.Context, site int, port uint16) (l net.Listener, err error) {
	err = m.places[site].thread.visit(func() error {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, "tcp4", netip.AddrPortFrom(m.address(site), port).String())
		return err
	})
	return l, err
}

func (m *namespaces) dial(ctx context.Context, from int, to netip.AddrPort) (conn net.Conn, err error) {
	err = m.places[from].thread.visit(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp4", to.String())
		return err
	})
	return conn, err
}

func (*namespaces) reach(_ context.Context, _ int, to netip.AddrPort) (netip.AddrPort, error) {
	return to, nil
}

func (m *namespaces) start(site int, cmd *exec.Cmd) error { return m.places[site].thread.start(cmd) }

// dropped reads the counters of the site's device.
func (m *namespaces) dropped(site int) (packets int64, err error) {
	err = m.places[site].thread.do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		packets, err = findDropped(string(text), deviceName(site))
		return err
	})
	return packets, err
}

// close kills what runs in the namespaces, and lets go of them.
func (m *namespaces) close() error {
	var errs []error
	for _, p := range m.places {
		if !p.isHere {
			errs = append(errs, killAll(p.thread.namespace))
		}
	}
	for _, p := range m.places {
		if p.device != nil {
			errs = append(errs, p.device.file.Close())
		}
		p.thread.end()
	}
	return errors.Join(errs...)
}

// killAll kills all processes in a network namespace but this one, and waits until they have left it.
func killAll(namespace *os.File) error {
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", namespace.Fd()))
	if err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		links, err := filepath.Glob("/proc/[0-9]*/ns/net")
		if err != nil {
			return err
		}
		left := 0
		for _, link := range links {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
			if is, gone := os.Readlink(link); err != nil || gone != nil || is != want || pid == os.Getpid() {
				continue
			}
			left++
			_ = unix.Kill(pid, unix.SIGKILL) // an error means that it has ended
		}
		if left == 0 {
			return nil
		}
		if time.Since(began) > killTime {
			return fmt.Errorf("%d processes of a site do not end", left)
		}
	}
}

// carry takes the packets of one site to the others, until its device is closed.
func (m *namespaces) carry(from int) {
	buf := make([]byte, virtioLen+maxPacket)
	sender := m.places[from].device.file
	for {
		n, err := sender.Read(buf)
		if err != nil {
			if !m.network.isClosed() {
				panic(fmt.Sprintf("BUG: the device of site %d: %v", from, err)) // nobody else has it
			}
			return
		}
		frame := buf[:n]
		last, ok := destination(frame)
		to := int(last) - 1
		if !ok || to < 0 || to >= len(m.places) || to == from {
			continue
		}
		p, z, receiver := m.network.paths[from][to], measure(frame), m.places[to].device.file
		o, isDirect := p.offer(z, func() cargo { return m.frames.copyOf(frame, receiver) })
		switch {
		case isDirect:
			p.reportArrival(&entry{size: z, taken: p.clock.now(), order: o}, writeFrame(receiver, frame, o.copies))
		case o.fate == fateRefused:
			if reset := makeReset(frame); reset != nil {
				writeFrame(sender, reset, 1)
			}
		}
	}
}

// writeFrame has a device receive a frame so many times, and returns how often it did. The kernel refuses what it has no room for.
func writeFrame(receiver *os.File, frame []byte, copies int) (delivered int) {
	for range copies {
		if _, err := receiver.Write(frame); err == nil {
			delivered++
		}
	}
	return delivered
}

// frame is a copy of a frame that is under way.
type frame struct {
	bytes    []byte
	receiver *os.File
	pool     *sync.Pool // has its buffer before and after
}

// arrive writes the frame, and gives back its buffer.
func (f *frame) arrive(copies int) (delivered int) {
	delivered = writeFrame(f.receiver, f.bytes, copies)
	f.pool.Put(f)
	return delivered
}

// framePool has buffers for frames: those of each power of two.
type framePool [20]sync.Pool

func (p *framePool) copyOf(b []byte, receiver *os.File) *frame {
	class := bits.Len(uint(len(b) - 1))
	f, ok := p[class].Get().(*frame)
	if !ok {
		f = &frame{bytes: make([]byte, 1<<class), pool: &p[class]}
	}
	f.receiver = receiver
	f.bytes = f.bytes[:copy(f.bytes[:cap(f.bytes)], b)]
	return f
}
