package txn

import (
	"cmp"
	"slices"
	"time"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn/entry"
)

// Topic is the name of the topic that has the records of transactions.
const Topic = entry.Topic

// Settings are the values of the cluster's configs for transactions. The zero value of a field means
// Kafka's default.
type Settings struct {
	MaxTimeout     time.Duration // transaction.max.timeout.ms
	Expiration     time.Duration // transactional.id.expiration.ms
	ExpirationScan time.Duration // transaction.remove.expired.transaction.cleanup.interval.ms
	// AddWait is how long partitions that are added wait for the end of the transaction before
	// (add.partitions.to.txn.retry.backoff.max.ms); below 0: they do not wait.
	AddWait time.Duration
}

// withDefaults is s with Kafka's defaults for what is zero.
func (s Settings) withDefaults() Settings {
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	or(&s.MaxTimeout, 15*time.Minute)
	or(&s.Expiration, 7*24*time.Hour)
	or(&s.ExpirationScan, time.Hour)
	or(&s.AddWait, 100*time.Millisecond)
	return s
}

// ProducerIDs are the producer ids that the controller has given to this node, in blocks. One owner on a node
// gives them to all who need some.
type ProducerIDs interface {
	// Take returns a producer id that nobody else gets, or false if none is left. It never waits: the
	// owner has to reserve the next block. Meanwhile clients are told to ask again.
	Take() (id int64, ok bool)
}

// Config says how a machine works.
type Config struct {
	// Settings returns the present configs; nil means Kafka's defaults.
	Settings func() Settings
	IDs      ProducerIDs
	// Memory bounds what the transactional ids of this node take.
	Memory *memory.Budget
	// Send takes a decision that is committed, so that its markers are written; see Decision. It is called
	// with no lock held, by any goroutine, and must not block.
	Send func(Decision)
	// Counts has the numbers of all machines of the node; nil: nobody wants them.
	Counts *Counts
	// Abortions logs the transactions that all machines of the node abort by themselves; nil: nobody wants that.
	Abortions *Abortions
}

// transaction is a transactional id with its present or last transaction.
type transaction struct {
	id string
	state
	end    record.Offset // the offset after the id's last record
	timer  coord.Timer   // set while ongoing: its timeout; while ending: when to look after the markers
	pauses int           // how often partitions were to be asked again since the decision

	waiting []*waiter // requests for the next transaction, while this one ends
}

// Machine holds the transactional ids of one partition of Topic.
type Machine struct {
	cfg    Config
	timers *coord.Timers
	scan   coord.Timer // looks for expired ids
	memory *memory.Account

	ids       map[string]*transaction
	last      record.Offset // the offset after the last record applied
	loaded    bool          // the log was applied: what follows are decisions of this machine
	isCounted bool          // the statuses of all ids are in Counts: from Loaded until Unload
}

var _ coord.Machine = (*Machine)(nil)

// New makes the machine of a partition, before any record is applied.
func New(cfg Config, t *coord.Timers) *Machine {
	if cfg.Settings == nil {
		cfg.Settings = func() Settings { return Settings{} }
	}
	if cfg.Counts == nil {
		cfg.Counts = new(Counts)
	}
	m := &Machine{cfg: cfg, timers: t, memory: memory.NewAccount(cfg.Memory), ids: map[string]*transaction{}}
	m.scan.Fire = m.expireIDs
	return m
}

func (m *Machine) settings() Settings { return m.cfg.Settings().withDefaults() }

// Apply changes the state by one record.
func (m *Machine) Apply(s *coord.Step, r coord.Record) error {
	m.last = s.Next()
	id, err := decodeKey(r.Key)
	if err != nil {
		return err
	}
	if r.Value == nil {
		m.deleteID(s, id)
		return nil
	}
	st, err := decodeValue(r.Value)
	if err != nil {
		return err
	}
	t := m.ids[id]
	if t == nil {
		t = m.addID(id)
	}
	m.memory.Add(st.partitions.size() - t.partitions.size())
	m.countStatus(t, -1)
	t.state, t.end, t.pauses = st, s.Next(), 0
	m.countStatus(t, 1)
	if m.loaded {
		m.setTimer(s, t)
		switch {
		case t.isEnding():
			s.Then(func() { m.pursueEnd(s, t) })
		case t.isIdle() && len(t.waiting) > 0: // once: the first of them sees to the others
			s.Then(func() { m.resumeWaiting(s, t) })
		}
	}
	return nil
}

func (m *Machine) addID(id string) *transaction {
	t := &transaction{id: id}
	t.timer.Fire = func(s *coord.Step) { m.fireTimer(s, t) }
	m.ids[id] = t
	m.countStatus(t, 1)
	m.memory.Add(sizeOf(id, &t.state))
	return t
}

func (m *Machine) deleteID(s *coord.Step, id string) {
	if t := m.ids[id]; t != nil {
		m.timers.Stop(&t.timer)
		m.answerWaiting(s, t, invalidProducerIDMapping)
		m.memory.Add(-sizeOf(id, &t.state))
		m.countStatus(t, -1)
		delete(m.ids, id)
	}
}

// Loaded sets the timers of transactions. Those that are decided go on at once: the coordinator before
// may not have written all of their markers.
func (m *Machine) Loaded(s *coord.Step) {
	m.loaded = true
	m.memory.JoinBudget()
	m.countAll(true)
	m.timers.Set(&m.scan, s.Now.Add(m.settings().ExpirationScan))
	var open []*transaction
	for _, t := range m.ids {
		if !t.isIdle() {
			open = append(open, t)
		}
	}
	slices.SortFunc(open, func(a, b *transaction) int { return cmp.Compare(a.end, b.end) }) // a simulation goes the same way again
	for _, t := range open {
		m.setTimer(s, t)
	}
}

// Unload answers all requests that wait: this node is no longer the coordinator.
func (m *Machine) Unload(s *coord.Step) {
	m.memory.LeaveBudget()
	m.countAll(false)
	for _, t := range m.ids {
		m.answerWaiting(s, t, notCoordinator)
	}
}

// setTimer sets an id's timer as its state needs it.
func (m *Machine) setTimer(s *coord.Step, t *transaction) {
	switch {
	case t.status == ongoing:
		m.timers.Set(&t.timer, t.deadline(s.Now))
	case t.isEnding():
		m.timers.Set(&t.timer, s.Now)
	default:
		m.timers.Stop(&t.timer)
	}
}

// fireTimer does what the state of an id asks for when its timer ends.
func (m *Machine) fireTimer(s *coord.Step, t *transaction) {
	switch {
	case t.status == ongoing:
		m.abortTimedOut(s, t)
	case t.isEnding():
		m.pursueEnd(s, t)
	}
}

// find returns a transactional id, or nil if there is none. The step's replies then wait for the
// id's last record or, if there is none, for the partition's: that record may have deleted the id.
func (m *Machine) find(s *coord.Step, id string) *transaction {
	t := m.ids[id]
	if t == nil {
		s.After(m.last)
		return nil
	}
	s.After(t.end)
	return t
}

// hasRoom tells whether n more bytes of memory may be taken for an id. If not, the log says so.
func (m *Machine) hasRoom(s *coord.Step, id string, n int64) bool {
	if n <= 0 || n <= m.memory.Room() {
		return true
	}
	m.memory.WarnFull(s.Now, id, n)
	return false
}
