package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// devicePackets is how many packets a device keeps for this process to read, before the kernel drops further ones.
const devicePackets = 50_000

// device is a TUN device with a virtio header before each packet.
type device struct{ file *os.File }

func deviceName(site int) string { return fmt.Sprintf("leat-wan-%d", site) }

// openDevice makes a device in the namespace of the thread that calls it, and gives it an address and the way to all sites.
func openDevice(site int, addr netip.Addr, mtu int) (*device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	name := deviceName(site)
	if err := configureDevice(fd, name, addr, mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("device %s: %w", name, err), unix.Close(fd))
	}
	d := &device{os.NewFile(uintptr(fd), name)}
	if err := d.offload(true); err != nil {
		return nil, errors.Join(fmt.Errorf("device %s: %w", name, err), d.file.Close())
	}
	return d, nil
}

func configureDevice(tun int, name string, addr netip.Addr, mtu int) (err error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(socket)) }()
	address := addr.As4()
	const up = unix.IFF_UP | unix.IFF_RUNNING
	for _, step := range []struct {
		what  string
		fd    int
		name  string
		call  uint
		value func(*unix.Ifreq) error
	}{
		{"make", tun, name, unix.TUNSETIFF, setUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)},
		{"address", socket, name, unix.SIOCSIFADDR, setAddress(address[:])},
		{"mask", socket, name, unix.SIOCSIFNETMASK, setAddress([]byte{255, 255, 255, 0})},
		{"MTU", socket, name, unix.SIOCSIFMTU, setUint32(uint32(mtu))},
		{"queue", socket, name, unix.SIOCSIFTXQLEN, setUint32(devicePackets)},
		{"up", socket, name, unix.SIOCSIFFLAGS, setUint16(up)},
		{"loopback up", socket, "lo", unix.SIOCSIFFLAGS, setUint16(up | unix.IFF_LOOPBACK)},
	} {
		req, err := unix.NewIfreq(step.name)
		if err == nil {
			err = step.value(req)
		}
		if err == nil {
			err = unix.IoctlIfreq(step.fd, step.call, req)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func setUint16(v uint16) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error {
		r.SetUint16(v)
		return nil
	}
}

func setUint32(v uint32) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error {
		r.SetUint32(v)
		return nil
	}
}

func setAddress(b []byte) func(*unix.Ifreq) error {
	return func(r *unix.Ifreq) error { return r.SetInet4Addr(b) }
}

// findDropped finds, in the text of /proc/net/dev, how many packets a device has dropped that were sent to it.
func findDropped(text, device string) (int64, error) {
	const field = 11 // the fourth one of those of sending, after eight of receiving
	for line := range strings.Lines(text) {
		name, numbers, _ := strings.Cut(line, ":")
		if fields := strings.Fields(numbers); strings.TrimSpace(name) == device && len(fields) > field {
			return strconv.ParseInt(fields[field], 10, 64)
		}
	}
	return 0, fmt.Errorf("the kernel has no counters of %s", device)
}

// offload says whether the kernel may hand over large TCP segments, and packets without a checksum, so that fewer pass this process.
func (d *device) offload(may bool) error {
	conn, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	features := 0
	if may {
		features = unix.TUN_F_CSUM | unix.TUN_F_TSO4
	}
	var refused error
	if err := conn.Control(func(fd uintptr) { refused = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, features) }); err != nil {
		return err
	}
	return refused
}
