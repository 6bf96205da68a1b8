//go:build linux

package main_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The flood is made of connections that send the worst request of each kind, over and over, before
// anybody has logged in. LEAT_FLOOD=60s gives each kind a minute, and LEAT_FLOOD_ONLY names the
// only kind to be sent. LEAT_FLOOD_PROFILES names a directory for profiles of the heap.
const (
	floodConns   = 100
	floodShort   = 2 * time.Second // for all kinds together, unless LEAT_FLOOD gives each its time
	floodTopics  = 1000            // ordinary topics on the node; 10,000 in the long form
	floodLimit   = 400             // MiB of resident memory that a node on a large machine may take
	floodSmall   = 200             // the same with GOMEMLIMIT=256MiB
	honestPauses = 10 * time.Millisecond
)

// TestFlood proves that a node stays within its memory under the worst requests that can be sent,
// and that honest clients are served meanwhile without an error. It logs how fast they are served.
func TestFlood(t *testing.T) {
	for _, c := range []struct {
		name, memLimit string
		most           int
	}{{"large machine", "", floodLimit}, {"256 MiB", "256MiB", floodSmall}} {
		t.Run(c.name, func(t *testing.T) {
			if c.memLimit != "" {
				t.Setenv("GOMEMLIMIT", c.memLimit)
			}
			flood(t, c.most)
		})
	}
}

func flood(t *testing.T, mostMiB int) {
	t.Helper()
	topics, each, long := floodTopics, time.Duration(0), os.Getenv("LEAT_FLOOD")
	if long != "" {
		topics = 9_990 // with the other topics these are as many as one request may make
		var err error
		if each, err = time.ParseDuration(long); err != nil {
			t.Fatal(err)
		}
	}
	kinds := floodKinds(topics)
	if each > 0 {
		for _, k := range kinds {
			if only := os.Getenv("LEAT_FLOOD_ONLY"); only != "" && only != k.name {
				continue
			}
			most := mostMiB
			if most == floodLimit {
				most += k.over
			}
			floodOne(t, k.name, []floodKind{k}, topics, each, most)
		}
	}
	if each == 0 { // these kinds take memory by the answers that they ask for and not by the way they are sent
		kinds = slices.DeleteFunc(kinds, func(k floodKind) bool { return k.long })
	}
	floodOne(t, "all kinds", kinds, topics, max(each, floodShort), mostMiB)
}

// floodOne starts a node and floods it with requests of the kinds.
func floodOne(t *testing.T, name string, kinds []floodKind, topics int, d time.Duration, mostMiB int) {
	t.Helper()
	var args []string
	web := freeAddr(t)
	if floodProfiles() != "" {
		args = []string{"--http", web}
	}
	p := up(t, t.TempDir(), args...)
	prepareFlood(t, p, topics)
	if dir := floodProfiles(); dir != "" {
		ended := make(chan struct{})
		defer close(ended)
		go saveProfiles(t, web, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+"-"+strconv.Itoa(mostMiB)), ended)
	}
	runFlood(t, p, name, attackPlan{kinds, topics, d}, mostMiB)
	p.kill()
}

// floodProfiles is the directory for profiles of the heap, of which each second gets one. It is
// empty if none are wanted.
func floodProfiles() string { return os.Getenv("LEAT_FLOOD_PROFILES") }

func saveProfiles(t *testing.T, web, file string, ended <-chan struct{}) {
	t.Helper()
	for i := 0; ; i++ {
		select {
		case <-time.After(time.Second):
		case <-ended:
			return
		}
		resp, err := http.Get("http://" + web + "/debug/pprof/heap")
		if err != nil {
			return
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			err = os.WriteFile(fmt.Sprintf("%s-%d.heap", file, i), b, 0o644)
		}
		if err != nil {
			t.Logf("no profile: %v", err)
			return
		}
	}
}

// runFlood sends requests of the kinds for some time, and watches the node and the honest clients.
func runFlood(t *testing.T, p *process, name string, a attackPlan, mostMiB int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), a.duration)
	defer cancel()
	var attackers, honest sync.WaitGroup
	var answers, closed int64
	var took [2][]time.Duration
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression()} {
		ready := make(chan struct{})
		honest.Go(func() { took[i] = beHonest(ctx, t, p, codec, ready) })
		<-ready
	}
	attackers.Go(func() { answers, closed = runAttackers(t, p.addr, a) })
	most := 0
	for ctx.Err() == nil {
		most = max(most, residentMiB(t, p.cmd.Process.Pid))
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		case <-p.done:
			t.Fatalf("the node has ended: %v", p.err)
		}
	}
	honest.Wait()
	attackers.Wait()
	t.Logf("%-18s %4d MiB at most; %d answers, %d connections ended; honest clients' p99 %v plain, %v compressed",
		name, most, answers, closed, p99(took[0]), p99(took[1]))
	if most > mostMiB {
		t.Errorf("%s: the node took %d MiB, more than %d", name, most, mostMiB)
	}
}

// attackPlan says what attackers do: which kinds of requests they send, for how long, and beside
// how many topics.
type attackPlan struct {
	kinds    []floodKind
	topics   int
	duration time.Duration
}

// runAttackers runs the attack in a process of its own at the lowest priority, because real
// attackers do not use the processors of the node and of honest clients. It returns how many
// answers they got and how many connections ended.
func runAttackers(t *testing.T, addr string, a attackPlan) (answers, closed int64) {
	t.Helper()
	var names []string
	for _, k := range a.kinds {
		names = append(names, k.name)
	}
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19", os.Args[0], "-test.run", "^TestFloodAttackers$", "-test.v")
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=", "LEAT_FLOOD_ATTACK="+strings.Join([]string{addr, strconv.Itoa(a.topics), a.duration.String(), strings.Join(names, ",")}, ";"))
	out, err := cmd.CombinedOutput()
	if _, said, ok := strings.Cut(string(out), attackersSaid); err != nil || !ok {
		t.Errorf("the attackers: %v\n%s", err, out)
	} else if _, err := fmt.Sscanf(said, "%d %d", &answers, &closed); err != nil {
		t.Error(err)
	}
	return answers, closed
}

// attackersSaid precedes the numbers that the attackers' process prints.
const attackersSaid = "answers and ended connections: "

// TestFloodAttackers is the process of the attackers. It proves nothing by itself.
func TestFloodAttackers(t *testing.T) {
	args := strings.Split(os.Getenv("LEAT_FLOOD_ATTACK"), ";")
	if len(args) != 4 {
		t.Skip("TestFlood runs it")
	}
	topics, err := strconv.Atoi(args[1])
	if err != nil {
		t.Fatal(err)
	}
	d, err := time.ParseDuration(args[2])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	kinds := slices.DeleteFunc(floodKinds(topics), func(k floodKind) bool { return !slices.Contains(strings.Split(args[3], ","), k.name) })
	var attackers sync.WaitGroup
	var answers, closed atomic.Int64
	for i := range floodConns {
		attackers.Go(func() { attack(ctx, args[0], kinds[i%len(kinds)], &answers, &closed) })
	}
	attackers.Wait()
	fmt.Printf("%s%d %d\n", attackersSaid, answers.Load(), closed.Load())
}

func p99(took []time.Duration) time.Duration {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100].Round(100 * time.Microsecond)
}

// beHonest produces records and waits for each of them. It returns how long each took.
func beHonest(ctx context.Context, t *testing.T, p *process, codec kgo.CompressionCodec, ready chan<- struct{}) (took []time.Duration) {
	t.Helper()
	cl := p.client(t, kgo.DefaultProduceTopic("honest"), kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(0))
	value := make([]byte, 4<<10)
	if err := cl.ProduceSync(t.Context(), kgo.SliceRecord(value)).FirstErr(); err != nil {
		t.Error(err)
	}
	close(ready)
	for ctx.Err() == nil {
		begin := time.Now()
		patient, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := cl.ProduceSync(patient, kgo.SliceRecord(value)).FirstErr()
		cancel()
		if err != nil {
			t.Errorf("an honest client was refused: %v", err)
			return took
		}
		took = append(took, time.Since(begin))
		select {
		case <-time.After(honestPauses):
		case <-ctx.Done():
		}
	}
	return took
}

// floodKind is a kind of request. Its bytes are sent unchanged again and again.
type floodKind struct {
	name   string
	bytes  []byte
	unread bool // the answers are not read
	long   bool // it is sent in the long form only
	over   int  // MiB above floodLimit that a large machine takes for it: a bound that is not met yet
}

// attack sends a kind's requests, on one connection at a time, until the time is over.
func attack(ctx context.Context, addr string, k floodKind, answers, closed *atomic.Int64) {
	for ctx.Err() == nil {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			time.Sleep(honestPauses) // the node has many connections to serve
			continue
		}
		end := context.AfterFunc(ctx, func() { _ = c.Close() })
		var reading sync.WaitGroup
		if !k.unread {
			reading.Go(func() { countAnswers(c, answers) })
		}
		if len(k.bytes) == 0 {
			<-ctx.Done()
		}
		for err == nil && len(k.bytes) > 0 {
			_, err = c.Write(k.bytes)
			if k.unread && err == nil {
				answers.Add(1)
			}
		}
		closed.Add(1)
		end()
		_ = c.Close()
		reading.Wait()
	}
}

func countAnswers(c net.Conn, answers *atomic.Int64) {
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
			return
		}
		answers.Add(1)
	}
}

// prepareFlood makes the topics. It puts a batch that decompresses to a gigabyte into one of them.
func prepareFlood(t *testing.T, p *process, topics int) {
	t.Helper()
	cl := p.client(t)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 60_000
	names := []string{"honest", "bombs", "packed"}
	for i := range topics {
		names = append(names, fmt.Sprintf("topic-%d", i))
	}
	for _, name := range names {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, 1, 1
		if name == "packed" {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = "compression.type", new("gzip")
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range resp.Topics {
		if rt.ErrorCode != 0 {
			t.Fatalf("topic %s: code %d", rt.Topic, rt.ErrorCode)
		}
	}
	find := kmsg.NewPtrFindCoordinatorRequest() // makes the topic of groups
	find.CoordinatorKeys = []string{"g"}
	if _, err := find.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(requestOf(9, produceOf("bombs", bomb(1000, 7)))); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4)
	_, err = io.ReadFull(c, answer)
	if err == nil {
		answer = make([]byte, binary.BigEndian.Uint32(answer))
		_, err = io.ReadFull(c, answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	made := kmsg.NewPtrProduceResponse()
	made.SetVersion(9)
	if err := made.ReadFrom(answer[5:]); err != nil || made.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("the bomb was not stored: %v, %+v", err, made)
	}
}

// floodKinds are the worst requests.
func floodKinds(topics int) []floodKind {
	describe := kmsg.NewPtrDescribeConfigsRequest()
	describe.IncludeSynonyms, describe.IncludeDocumentation = true, true
	for i := range 300 {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
		if i%2 == 0 {
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, fmt.Sprintf("topic-%d", i%topics)
		}
		describe.Resources = append(describe.Resources, r)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.ValidateOnly = true
	for i := range 2000 {
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = fmt.Sprintf("not-%d", i), 1, 1
		create.Topics = append(create.Topics, rt)
	}
	lookUp := kmsg.NewPtrListOffsetsRequest()
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = "bombs"
	lp := kmsg.NewListOffsetsRequestTopicPartition()
	lp.Timestamp = bombTime + 1 // the timestamp of its last record
	lt.Partitions = append(lt.Partitions, lp)
	lookUp.Topics = append(lookUp.Topics, lt)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes = 1000, 1, 1<<20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic = "nowhere"
	for i := range int32(20_000) {
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.Partition = i
		ft.Partitions = append(ft.Partitions, fp)
	}
	fetch.Topics = append(fetch.Topics, ft)
	offsets := kmsg.NewPtrOffsetFetchRequest()
	og := kmsg.NewOffsetFetchRequestGroup()
	og.Group = "nobody"
	ot := kmsg.NewOffsetFetchRequestGroupTopic()
	ot.Topic = "topic-1"
	for i := range int32(100_000) {
		ot.Partitions = append(ot.Partitions, i)
	}
	og.Topics = append(og.Topics, ot)
	offsets.Groups = append(offsets.Groups, og)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = strings.Repeat("g", 30_000), -1
	ct := kmsg.NewOffsetCommitRequestTopic()
	ct.Topic, ct.Partitions = "topic-1", make([]kmsg.OffsetCommitRequestTopicPartition, 1)
	commit.Topics = append(commit.Topics, ct)
	remove := kmsg.NewPtrOffsetDeleteRequest()
	remove.Group = commit.Group
	remove.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: ct.Topic, Partitions: make([]kmsg.OffsetDeleteRequestTopicPartition, 50_000)}}
	bogus := produceOf("nowhere", nil)
	joins := joinsOf("large", 1<<20)
	for i := range int32(99_000) {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition = i
		bogus.Topics[0].Partitions = append(bogus.Topics[0].Partitions, p)
	}
	return append(parkedKinds(topics), []floodKind{
		{name: "claimed window", bytes: requestOf(9, produceOf("bombs", claim()))},
		{name: "window of 8 MiB", bytes: requestOf(9, produceOf("bombs", bomb(40, 13)))},
		{name: "gigabyte", bytes: requestOf(9, produceOf("bombs", bomb(1000, 7)))},
		{name: "encoded anew", bytes: requestOf(9, produceOf("packed", bomb(1000, 7)))},
		{name: "look-up", bytes: requestOf(7, lookUp)},
		{name: "configs", bytes: requestOf(4, describe)},
		{name: "configs unread", bytes: requestOf(4, describe), unread: true},
		{name: "all topics", bytes: requestOf(12, kmsg.NewPtrMetadataRequest())},
		{name: "all topics unread", bytes: requestOf(12, kmsg.NewPtrMetadataRequest()), unread: true},
		{name: "would be made", bytes: requestOf(7, create), long: true},
		{name: "bogus partitions", bytes: requestOf(12, fetch), long: true},
		{name: "offsets", bytes: requestOf(8, offsets), long: true},
		{name: "deleted offsets", bytes: append(requestOf(2, commit), requestOf(0, remove)...), long: true},
		{name: "log dirs unread", bytes: requestOf(4, kmsg.NewPtrDescribeLogDirsRequest()), unread: true},
		{name: "half sent", bytes: append(frame(90<<20, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'x', 0), make([]byte, 80<<20)...), long: true},
		{name: "large joins", bytes: joins, long: true, over: 100},
		{name: "large joins unread", bytes: joins, unread: true, long: true, over: 100},
		{name: "bogus produce", bytes: requestOf(9, bogus), long: true},
		{name: "versions unread", bytes: slices.Repeat(requestOf(0, kmsg.NewPtrApiVersionsRequest()), 100), unread: true, long: true},
	}...)
}

// joinsOf are joins of new members, one in each of four groups, whose subscriptions have so many
// bytes. A leader is told the subscriptions of all members.
func joinsOf(group string, size int) (frames []byte) {
	for i := range 4 {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.ProtocolType = fmt.Sprintf("%s-%d", group, i), "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 6000, 1000
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "range", make([]byte, size)
		req.Protocols = append(req.Protocols, p)
		frames = append(frames, requestOf(3, req)...) // a member of this version needs no id first
	}
	return frames
}

// parkedKinds are requests that wait, and requests whose answers wait behind one that does.
func parkedKinds(topics int) []floodKind {
	wait := func(topic string, partitions int32) *kmsg.FetchRequest {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 600_000, 1<<20, 1<<20
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic = topic
		for i := range partitions {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition = i
			rt.Partitions = append(rt.Partitions, p)
		}
		req.Topics = append(req.Topics, rt)
		return req
	}
	watch := wait("topic-0", 1)
	for i := 1; i < topics; i++ {
		watch.Topics = append(watch.Topics, wait(fmt.Sprintf("topic-%d", i), 1).Topics...)
	}
	names := kmsg.NewPtrListOffsetsRequest()
	nt := kmsg.NewListOffsetsRequestTopic()
	nt.Topic = "nowhere"
	for i := range int32(50_000) {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1
		nt.Partitions = append(nt.Partitions, p)
	}
	names.Topics = append(names.Topics, nt)
	return []floodKind{
		{name: "no attack", long: true}, // this shows how honest clients fare without an attack
		{name: "watched", bytes: requestOf(11, watch), long: true},
		{name: "hardly any watched", bytes: requestOf(11, wait("topic-0", 1000)), long: true},
		{name: "behind a parked one", bytes: append(requestOf(11, wait("topic-0", 1)), slices.Repeat(requestOf(7, names), 100)...), long: true},
	}
}

// requestOf is a request, in a version, as a frame.
func requestOf(version int16, req kmsg.Request) []byte {
	req.SetVersion(version)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("flood")).AppendRequest(nil, req, 1)
}

func produceOf(topic string, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 60_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

const bombTime = 1_700_000_000_000

// claim is a batch whose zstd frame claims a window of 128 MiB but has few bytes.
func claim() []byte {
	record := []byte{12, 0, 0, 0, 1, 1, 0}
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, byte(len(record)<<3 | 1), 0, 0}
	return zstdBatch(append(frame, record...), 1)
}

// bomb is a batch of two records. The first has many MiB of zeros, and the second comes a
// millisecond later. Each 128 KiB of zeros is a block of four bytes. The window is 1 KiB shifted by
// windowLog.
func bomb(mebi, windowLog int) []byte {
	size := mebi << 20
	var head []byte
	body := []byte{0, 0, 0, 1}
	body = binary.AppendVarint(body, int64(size))
	head = binary.AppendVarint(head, int64(len(body)+size+1))
	head = append(head, body...)
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(windowLog << 3)}
	block := func(h uint32, b ...byte) {
		frame = append(append(frame, byte(h), byte(h>>8), byte(h>>16)), b...)
	}
	block(uint32(len(head))<<3, head...)
	const most = 128 << 10
	for range size / most {
		block(most<<3|1<<1, 0)
	}
	last := []byte{0, 12, 0, 2, 2, 1, 1, 0}
	block(uint32(len(last))<<3|1, last...)
	return zstdBatch(frame, 2)
}

func zstdBatch(payload []byte, count int) []byte {
	b := make([]byte, 61, 61+len(payload))
	b = append(b, payload...)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16], b[22] = 2, 4
	be.PutUint32(b[23:], uint32(count-1))
	be.PutUint64(b[27:], bombTime)
	be.PutUint64(b[35:], bombTime+uint64(count-1))
	for i := 43; i < 57; i++ {
		b[i] = 0xff
	}
	be.PutUint32(b[57:], uint32(count))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}
