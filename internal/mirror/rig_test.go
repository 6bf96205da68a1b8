package mirror_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a cluster "here" of nodes 1 and 2, of which node 1 has a Service, and a source "there". The metadata are decided by the controller's own rules.
type rig struct {
	*testing.T

	source  *fakeCluster
	static  *config.Static
	service *mirror.Service

	changing sync.Mutex // held while the metadata change
	image    atomic.Pointer[meta.Image]
	ids      byte

	mu       sync.Mutex // guards the fields below
	logs     map[mirror.PartitionID]*memLog
	commits  int
	refusing error // what the controller answers; nil: it decides

	commitTime, byteTime   time.Duration // how long the disk takes for a commit, and for each byte of it
	unsynced, mostUnsynced int64         // bytes that wait for the disk, now, and at most
	diskFree               time.Time
}

// inBubble runs a test with a rig, with a clock that goes on when all wait.
func inBubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newRig(t, nil)) })
}

func newRig(t *testing.T, change func(c *mirror.Config)) *rig {
	t.Helper()
	static, err := config.NewStatic(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, source: newFakeCluster(t, 2), static: static, logs: map[mirror.PartitionID]*memLog{}}
	b := meta.AppendLevel(meta.Append(nil, meta.ClusterCreated{ID: "here", Tag: 1}), meta.LevelFeature, meta.LatestLevel)
	for id := int32(1); id <= 2; id++ {
		b = meta.Append(b, meta.BrokerRegistered{Broker: meta.Broker{
			ID: id, Epoch: int64(id), State: meta.BrokerActive, Features: []meta.FeatureRange{{Name: meta.LevelFeature, Max: meta.LatestLevel}},
			Listeners: []meta.Listener{{Name: "PLAINTEXT", Host: "h", Port: 9092}},
		}})
	}
	img, _, err := meta.Apply(meta.Empty(), b)
	if err != nil {
		t.Fatal(err)
	}
	r.image.Store(img)
	cfg := &mirror.Config{
		NodeID: 1, Image: r.image.Load, Static: static, ChangeLinks: r.changeLinks, AlterConfigs: r.alterConfigs, IsController: func() bool { return false },
		Partition: r.logOf, Transactions: r.transactionsOf, AskNode: r.askNode, Commit: r.commit, OpenSecret: func(sealed []byte) ([]byte, error) { return sealed, nil }, Dial: r.source.dial,
		Memory: budget.New(budget.Config{}),
	}
	if change != nil {
		change(cfg)
	}
	r.service = mirror.New(t.Context(), cfg)
	t.Cleanup(r.service.Close)
	return r
}

// apply changes the metadata.
func (r *rig) apply(records []byte) {
	r.Helper()
	r.changing.Lock()
	defer r.changing.Unlock()
	r.applyLocked(records)
}

func (r *rig) applyLocked(records []byte) {
	img, d, err := meta.Apply(r.image.Load(), records)
	if err != nil {
		r.Error(err)
		return
	}
	r.image.Store(img)
	r.service.Apply(d, img)
}

// changeLinks decides a change as the active controller does.
func (r *rig) changeLinks(_ context.Context, q *controller.LinksChange) (results []*controller.Error, refused *controller.Error, err error) {
	r.mu.Lock()
	err = r.refusing
	r.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	for items := len(q.Topics) + len(q.Partitions); ; {
		rules := &controller.Rules{Image: r.image.Load(), Static: r.static}
		d, some, refused := controller.Links{Rules: rules, MaxPartitions: 1000, NewID: func() meta.UUID {
			r.ids++
			return meta.UUID{1, 15: r.ids}
		}}.Change(q, len(results))
		r.applyLocked(d.Records)
		if results = append(results, some...); refused != nil || len(results) >= items {
			return results, refused, nil
		}
	}
}

func (r *rig) alterConfigs(_ context.Context, q []controller.ConfigChanges) ([]*controller.Error, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	d, results := (&controller.Rules{Image: r.image.Load(), Static: r.static}).AlterConfigs(q)
	r.applyLocked(d.Records)
	return results, nil
}

// must makes a change that is not refused.
func (r *rig) must(q *controller.LinksChange) {
	r.Helper()
	results, refused, err := r.changeLinks(r.Context(), q)
	if refused != nil || err != nil || slices.ContainsFunc(results, func(e *controller.Error) bool { return e != nil }) {
		r.Fatal(results, refused, err)
	}
}

// linkID is the id of the link of the tests.
var linkID = meta.UUID{15: 77}

// link makes a link to the source, with settings in the order of their keys.
func (r *rig) link(settings ...meta.LinkSetting) {
	r.Helper()
	all := append([]meta.LinkSetting{{Key: "bootstrap.servers", Value: "b1:9092,b2:9092"}}, settings...)
	slices.SortFunc(all, func(a, b meta.LinkSetting) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	r.must(&controller.LinksChange{Kind: controller.CreateLink, Link: &meta.Link{ID: linkID, Name: "north", Source: "there", Settings: all}})
}

// mirror makes a topic that mirrors the one of the same name, and has node 1 lead it.
func (r *rig) mirror(name string) *meta.Topic {
	r.Helper()
	r.source.mu.Lock()
	t := r.source.topics[name]
	id, partitions := t.id, len(t.partitions)
	r.source.mu.Unlock()
	r.must(&controller.LinksChange{Kind: controller.CreateMirrors, Topics: []controller.MirrorTopic{{
		Name: name, Partitions: int32(partitions), ReplicationFactor: 2, Mirror: &meta.Mirror{Link: linkID, Topic: name, TopicID: meta.UUID(id), Path: []string{"there"}},
	}}})
	for i := range partitions {
		r.lead(name, int32(i), 1)
	}
	return r.image.Load().Topic(name)
}

// lead has a node lead a partition, in the next leader epoch.
func (r *rig) lead(name string, partition, node int32) {
	r.Helper()
	t := r.image.Load().Topic(name)
	p := t.Partitions[partition]
	r.apply(meta.Append(nil, meta.PartitionChanged{Topic: t.ID, Partition: partition, ISR: p.ISR, Leader: node, LeaderEpoch: p.LeaderEpoch + 1, PartitionEpoch: p.PartitionEpoch + 1}))
}

func (r *rig) commit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits++
}

// logOf is the log of a partition on node 1.
func (r *rig) logOf(id mirror.PartitionID) mirror.Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.logs[id]
	if l == nil {
		l = &memLog{r: r, id: id}
		r.logs[id] = l
	}
	return l
}

// transactionsOf are the transactions of a partition on node 1.
func (r *rig) transactionsOf(id mirror.PartitionID) mirror.Transactions {
	l, _ := r.logOf(id).(*memLog)
	return memTransactions{l}
}

// askNode asks node 1, which is alone.
func (r *rig) askNode(ctx context.Context, node int32, question json.RawMessage) (json.RawMessage, error) {
	if node != 1 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return r.service.AnswerClaims(question)
}

func (r *rig) log(name string, partition int32) *memLog {
	r.Helper()
	t := r.image.Load().Topic(name)
	if t == nil {
		r.Fatalf("there is no topic %s", name)
	}
	l, _ := r.logOf(mirror.PartitionID{Topic: t.ID, Number: partition}).(*memLog)
	return l
}

// isCopy tells whether a partition here has all bytes of that of the source.
func (r *rig) isCopy(name string, partition int32) bool {
	return bytes.Equal(r.log(name, partition).bytes(), r.source.bytesOf(name, int(partition)))
}

// await lets the time pass until something is so, at most some minutes.
func (r *rig) await(what string, is func() bool) {
	r.Helper()
	for range 6000 {
		synctest.Wait()
		if is() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, s := range r.service.Status(linkID) {
		r.Logf("%s-%d: %v %s %+v", s.Topic, s.Number, s.State, s.Reason, s.Log)
	}
	r.Fatal("it never was so: ", what)
}

// status is the status of a partition.
func (r *rig) status(name string, partition int32) mirror.PartitionStatus {
	r.Helper()
	for _, s := range r.service.Status(linkID) {
		if s.Topic == name && s.Number == partition {
			return s
		}
	}
	return mirror.PartitionStatus{}
}

// memLog is a log in memory, as the leader has it.
type memLog struct {
	r  *rig
	id mirror.PartitionID

	mu         sync.Mutex // guards the fields below
	start, end record.Offset
	batches    []record.Batch
	last       record.Epoch
	cut        int32
	opens      int
	seen       int // batches that OnCommit has counted
	refuses    error
	lacks      record.Offset // how much of the end is not committed
	lacksEnds  bool          // markers are not committed until lacks is set anew
	failEnds   int           // how many of the next calls of End fail, after the markers were appended
}

// check refuses what is asked for in another epoch than the present one, and makes the cuts of the metadata. mu is held.
func (l *memLog) check(e record.Epoch) error {
	if l.refuses != nil {
		return l.refuses
	}
	t := l.r.image.Load().TopicByID(l.id.Topic)
	if t == nil {
		return mirror.ErrNotLeader
	}
	p := &t.Partitions[l.id.Number]
	if c, ok := p.Mirror.PendingCut(l.cut); ok {
		l.cutAt(record.Offset(c.Offset))
		l.cut = c.Number
	}
	if p.Leader != 1 || record.Epoch(p.LeaderEpoch) != e {
		return mirror.ErrNotLeader
	}
	return nil
}

func (l *memLog) cutAt(to record.Offset) {
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b record.Batch) bool { return b.NextOffset() > to })
	l.start, l.end, l.last = min(l.start, to), min(l.end, to), record.NoEpoch
	if n := len(l.batches); n > 0 {
		l.last = l.batches[n-1].LeaderEpoch()
	}
}

func (l *memLog) Open(e record.Epoch, cut int32) (progress.Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opens++; l.opens == 1 {
		l.last = record.NoEpoch
	}
	if err := l.check(e); err != nil {
		return progress.Log{}, err
	}
	if l.cut < cut {
		return progress.Log{}, fmt.Errorf("cut %d is not made", cut)
	}
	return l.state(), nil
}

func (l *memLog) State() (progress.Log, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state(), nil
}

func (l *memLog) state() progress.Log {
	s := progress.Log{Start: l.start, End: l.end, LastEpoch: l.last}
	if n := len(l.batches); n > 0 {
		s.Last = progress.BatchOf(l.batches[n-1])
	}
	return s
}

func (l *memLog) Append(e record.Epoch, raw []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(e); err != nil {
		return err
	}
	for len(raw) > 0 {
		b, rest, err := record.Next(raw)
		switch {
		case err != nil:
			return err
		case b.LeaderEpoch() > e:
			return mirror.ErrEpochAhead
		case b.BaseOffset() < l.end && len(l.batches) > 0 || b.LeaderEpoch() < l.last:
			return mirror.ErrDoesNotFit
		}
		l.batches, l.end, l.last, raw = append(l.batches, slices.Clone(b)), b.NextOffset(), b.LeaderEpoch(), rest
	}
	return nil
}

func (l *memLog) OnCommit(done func()) {
	l.r.mu.Lock()
	size := int64(0)
	for _, b := range l.batches[l.seen:] {
		size += int64(len(b))
	}
	l.seen = len(l.batches)
	l.r.unsynced += size
	l.r.mostUnsynced = max(l.r.mostUnsynced, l.r.unsynced)
	at := time.Now()
	if l.r.diskFree.After(at) {
		at = l.r.diskFree
	}
	l.r.diskFree = at.Add(l.r.commitTime + time.Duration(size)*l.r.byteTime)
	took := time.Until(l.r.diskFree)
	l.r.mu.Unlock()
	time.AfterFunc(took, func() {
		l.r.mu.Lock()
		l.r.unsynced -= size
		l.r.mu.Unlock()
		done()
	})
}

func (l *memLog) Trim(e record.Epoch, to record.Offset) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(e); err != nil {
		return err
	}
	l.start = max(l.start, to)
	l.batches = slices.DeleteFunc(slices.Clone(l.batches), func(b record.Batch) bool { return b.NextOffset() <= to })
	return nil
}

func (l *memLog) Skip(e record.Epoch, to record.Offset) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(e); err != nil {
		return err
	}
	l.batches, l.start, l.end, l.last = nil, to, to, record.NoEpoch
	return nil
}

func (l *memLog) EpochEnd(e record.Epoch) progress.Tail {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := progress.Tail{Epoch: record.NoEpoch}
	for _, b := range l.batches {
		if b.LeaderEpoch() <= e {
			t = progress.Tail{Epoch: b.LeaderEpoch(), End: b.NextOffset()}
		}
	}
	return t
}

func (l *memLog) BatchBefore(o record.Offset) progress.Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range slices.Backward(l.batches) {
		if b.BaseOffset() < o {
			return progress.BatchOf(b)
		}
	}
	return progress.Batch{}
}

func (l *memLog) bytes() (all []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.batches {
		all = append(all, b...)
	}
	return all
}

// set changes the log behind the Service's back.
func (l *memLog) set(change func(l *memLog)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}
