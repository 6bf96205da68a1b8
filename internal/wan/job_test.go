package wan_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/wan"
)

const transferBytes = 256 << 20 // that are sent in one round of BenchmarkStream

// job is this program as a process in a site.
type job struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startJob(tb testing.TB, s *wan.Site, name, address string) *job {
	tb.Helper()
	j := &job{tb: tb, cmd: exec.Command(os.Args[0])}
	j.cmd.Env = append(os.Environ(), "WAN_TEST_JOB="+name, "WAN_TEST_ADDRESS="+address)
	j.cmd.Stderr = tb.Output()
	in, err := j.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	j.in, j.out = in, bufio.NewScanner(out)
	if err := s.Start(j.cmd); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = j.cmd.Process.Kill()
		_ = j.cmd.Wait()
	})
	return j
}

func (j *job) ask(what string) {
	j.tb.Helper()
	if _, err := fmt.Fprintln(j.in, what); err != nil {
		j.tb.Fatal(err)
	}
}

// await waits until the job says something.
func (j *job) await(what string) {
	j.tb.Helper()
	for j.out.Scan() {
		if j.out.Text() == what {
			return
		}
	}
	j.tb.Fatalf("the job has ended before it said %q: %v", what, j.out.Err())
}

// discardAll reads what connections bring: a length, so many bytes, again and again. It acknowledges each by a byte.
func discardAll(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			buf := make([]byte, 256<<10)
			for {
				var length [8]byte
				if _, err := io.ReadFull(conn, length[:]); err != nil {
					return
				}
				for left := int64(binary.BigEndian.Uint64(length[:])); left > 0; {
					n, err := conn.Read(buf[:min(left, int64(len(buf)))])
					if err != nil {
						return
					}
					left -= int64(n)
				}
				if _, err := conn.Write([]byte{1}); err != nil {
					return
				}
			}
		}()
	}
}

// sendAll sends transferBytes for each line that it reads, by some connections at the same time.
func sendAll(address string, connections int) {
	var conns []net.Conn
	for range connections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			panic(err)
		}
		conns = append(conns, conn)
	}
	fmt.Fprintln(os.Stdout, "ready")
	part := make([]byte, 256<<10)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Fprintln(os.Stdout, "sent") {
		var all sync.WaitGroup
		for _, conn := range conns {
			all.Go(func() {
				each := transferBytes / connections
				if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(each))); err != nil {
					panic(err)
				}
				for left := each; left > 0; {
					n, err := conn.Write(part[:min(left, len(part))])
					if err != nil {
						panic(err)
					}
					left -= n
				}
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					panic(err)
				}
			})
		}
		all.Wait()
	}
}

// runJob does the job of a process that a test has started; false: there is none of the name.
func runJob(name, address string) bool {
	name, argument, _ := strings.Cut(name, " ")
	number, _ := strconv.Atoi(argument)
	switch name {
	case "sink":
		discardAll(address)
	case "echo":
		echoAll(address)
	case "parent":
		echoInChild(address)
	case "ask":
		askOnce(address)
	case "namespace":
		printNamespace()
	case "panic":
		panicInNetwork(wan.Kind(number))
	case "here":
		askFromHere()
	case "powerless":
		becomePowerless()
		askFromHere()
	case "source":
		sendAll(address, number)
	default:
		return false
	}
	return true
}

// echoAll sends back what connections bring.
func echoAll(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go echo(conn)
	}
}

// echoInChild has a process of its own do what echoAll does, with the same standard output.
func echoInChild(address string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WAN_TEST_JOB=echo", "WAN_TEST_ADDRESS="+address)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		panic(err)
	}
}

// askOnce sends a word to a port that sends it back.
func askOnce(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		panic(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(conn, b); err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, "got "+string(b))
}

func printNamespace() {
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	fmt.Fprintln(os.Stdout, name)
}

// panicInNetwork panics while a process of its own runs in a site, which has the same standard output.
func panicInNetwork(kind wan.Kind) {
	n, err := wan.New(context.Background(), wan.Config{Sites: []string{"a"}, Kind: kind})
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WAN_TEST_JOB=echo", "WAN_TEST_ADDRESS="+n.Site("a").At(0))
	cmd.Stdout = os.Stdout
	if err := n.Site("a").Start(cmd); err != nil {
		panic(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		panic("as it was told to")
	}
}

// askFromHere asks a port of a site from the site in which this process is, by any means.
func askFromHere() {
	ctx := context.Background()
	n, err := wan.New(ctx, wan.Config{Sites: []string{"here", "there"}, Here: "here"})
	if err != nil {
		panic(err)
	}
	l, err := n.Site("there").Listen(ctx, 0)
	if err != nil {
		panic(err)
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		echo(conn)
	}()
	askOnce(l.Addr().String())
	fmt.Fprintf(os.Stdout, "%v, by the path: %v\n", n.Kind(), n.Counters(n.Site("here"), n.Site("there")).Delivered > 0)
}
