package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var be = binary.BigEndian

// Versions of the two timed requests that are served.
const (
	produceLow, produceHigh = 5, 7
	fetchVersion            = 11
)

// maxThreads is how many connections have a thread of their own. Those beyond are
// many: the poller then finds several at once, and idle ones need no stack.
const maxThreads = 4

// server is the partitions; every topic has the same ones.
type server struct {
	cfg  *config
	port int32

	threads atomic.Int32 // connections that have one
	journal *journal     // nil: none

	mu    sync.RWMutex
	topic string // the last that was made
	parts []*part
}

// run serves until a signal ends it.
func run(cfg *config) error {
	if cfg.store != "file" && cfg.store != "discard" || cfg.io != "thread" && cfg.io != "poll" ||
		!slices.Contains([]string{"auto", "pread", "sendfile"}, cfg.serve) {
		return errors.New("-store is file or discard, -io is thread or poll, -serve is auto, pread or sendfile")
	}
	if cfg.ring == 0 && (cfg.recycle || cfg.allocate) {
		cfg.ring = 1024
	}
	l, err := net.Listen("tcp", cfg.addr) //nolint:noctx // it ends with the process
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	s := &server{cfg: cfg, port: int32(n)}
	if err := s.begin(); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ended
		l.Close() //nolint:errcheck // the process ends
	}()
	return s.accept(l)
}

// begin makes what has to be there before the first request.
func (s *server) begin() (err error) {
	if s.cfg.journal > 0 {
		s.journal, err = newJournal(s.cfg.dir+"/floor.journal", s.cfg.journal, s.checkpoint)
	}
	return err
}

// checkpoint syncs all partitions' files.
func (s *server) checkpoint() error {
	s.mu.RLock()
	parts := slices.Clone(s.parts)
	s.mu.RUnlock()
	for _, p := range parts {
		if err := p.commit(); err != nil {
			return err
		}
	}
	return nil
}

// accept serves until the listener is closed.
func (s *server) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return s.reset("", 0)
		}
		if err != nil {
			return err
		}
		tcp, _ := c.(*net.TCPConn)
		go s.serve(tcp)
	}
}

// reset forgets all partitions and makes n new ones.
func (s *server) reset(topic string, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		if err := p.remove(); err != nil {
			return err
		}
	}
	s.parts, s.topic = nil, topic
	for i := range n {
		p := &part{cfg: s.cfg, name: fmt.Sprintf("%s/floor-%d.log", s.cfg.dir, i), fd: -1}
		if s.cfg.store == "file" {
			if err := p.open(); err != nil {
				return err
			}
		}
		s.parts = append(s.parts, p)
	}
	return nil
}

func (s *server) part(i int32) *part {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if i < 0 || int(i) >= len(s.parts) {
		return nil
	}
	return s.parts[i]
}

func (s *server) serve(tcp *net.TCPConn) {
	threads := s.threads.Add(1)
	defer s.threads.Add(-1)
	sock, end, err := newSocket(tcp, s.cfg, s.cfg.io == "thread" && threads <= maxThreads)
	if err == nil {
		defer end()
		c := &conn{s: s, sock: sock}
		err = c.loop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
	}
}

// other answers what is not timed.
func (s *server) other(key, version int16, body []byte) (kmsg.Response, error) {
	if key == kmsg.ApiVersions.Int16() && version > 2 {
		resp := kmsg.NewPtrApiVersionsResponse() // of version 0, by which the client learns
		resp.ErrorCode = 35                      // unsupported version
		s.versions(resp)
		return resp, nil
	}
	req := kmsg.RequestForKey(key)
	if req == nil {
		return nil, fmt.Errorf("api key %d is not served", key)
	}
	req.SetVersion(version)
	if err := req.ReadFrom(body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	switch req := req.(type) {
	case *kmsg.ApiVersionsRequest:
		s.versions(resp)
	case *kmsg.MetadataRequest:
		s.metadata(req, resp)
	case *kmsg.ListOffsetsRequest:
		s.offsets(req, resp)
	case *kmsg.CreateTopicsRequest:
		r, _ := resp.(*kmsg.CreateTopicsResponse)
		for _, t := range req.Topics {
			if err := s.reset(t.Topic, int(max(1, t.NumPartitions))); err != nil {
				return nil, err
			}
			rt := kmsg.NewCreateTopicsResponseTopic()
			rt.Topic = t.Topic
			r.Topics = append(r.Topics, rt)
		}
	case *kmsg.DeleteTopicsRequest:
		return resp, s.reset("", 0)
	default:
		return nil, fmt.Errorf("%s is not served", kmsg.NameForKey(key))
	}
	return resp, nil
}

func (*server) versions(resp kmsg.Response) {
	r, _ := resp.(*kmsg.ApiVersionsResponse)
	for _, k := range []struct{ key, low, high int16 }{
		{kmsg.Produce.Int16(), produceLow, produceHigh},
		{kmsg.Fetch.Int16(), fetchVersion, fetchVersion},
		{kmsg.ListOffsets.Int16(), 1, 5},
		{kmsg.Metadata.Int16(), 1, 8},
		{kmsg.ApiVersions.Int16(), 0, 2},
		{kmsg.CreateTopics.Int16(), 2, 4},
		{kmsg.DeleteTopics.Int16(), 1, 3},
	} {
		rk := kmsg.NewApiVersionsResponseApiKey()
		rk.ApiKey, rk.MinVersion, rk.MaxVersion = k.key, k.low, k.high
		r.ApiKeys = append(r.ApiKeys, rk)
	}
}

func (s *server) metadata(req *kmsg.MetadataRequest, resp kmsg.Response) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, _ := resp.(*kmsg.MetadataResponse)
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port = 1, "127.0.0.1", s.port
	r.Brokers, r.ControllerID = append(r.Brokers, b), 1
	for _, t := range req.Topics {
		rt := kmsg.NewMetadataResponseTopic()
		rt.Topic = t.Topic
		if t.Topic == nil || *t.Topic != s.topic {
			rt.ErrorCode = 3 // unknown topic
		}
		for i := 0; rt.ErrorCode == 0 && i < len(s.parts); i++ {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.Replicas, p.ISR = int32(i), 1, []int32{1}, []int32{1}
			rt.Partitions = append(rt.Partitions, p)
		}
		r.Topics = append(r.Topics, rt)
	}
}

func (s *server) offsets(req *kmsg.ListOffsetsRequest, resp kmsg.Response) {
	r, _ := resp.(*kmsg.ListOffsetsResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition = p.Partition
			if part := s.part(p.Partition); part == nil {
				rp.ErrorCode = 3
			} else {
				rp.Offset = part.offset(p.Timestamp)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
	}
}
