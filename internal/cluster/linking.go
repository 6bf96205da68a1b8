package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// LinkVerb is what the holder of a data directory asks a node for, of the links of its cluster.
type LinkVerb string

// The verbs. LinkList, LinkDescribe and LinkCheck change nothing, and no other one does with LinkRequest.DryRun.
const (
	// LinkCreate validates a link, and makes it if there is no problem. If there is one of the name already, nothing is changed: see LinkAnswer.Existed.
	LinkCreate LinkVerb = "create"
	// LinkAlter validates a link that is there with Settings, Unset and Secrets changed, and changes it if there is no problem.
	LinkAlter LinkVerb = "alter"
	// LinkDelete removes a link. It is refused while topics mirror by it.
	LinkDelete LinkVerb = "delete"
	// LinkPause and LinkResume are for Topics, by their names here; without any for the whole link.
	LinkPause  LinkVerb = "pause"
	LinkResume LinkVerb = "resume"
	// LinkSkip accepts the losses for which Partitions of the one topic wait; without Partitions, for which any of its partitions does. One that has failed tries again.
	LinkSkip LinkVerb = "skip"
	// LinkCheck validates a link that is there, by Name, or one that is not, by Settings and Secrets.
	LinkCheck LinkVerb = "check"

	// LinkList and LinkDescribe are served by this package, with what all nodes answer: a LinkServer never sees them. LinkDescribe is about one link, and lists its partitions,
	// those of Topics if there are any.
	LinkList     LinkVerb = "list"
	LinkDescribe LinkVerb = "describe"
)

// LinkRequest asks the node for something about the links of its cluster.
//
// Settings are those of meta.Link, in the order of their keys. They are:
//
//	bootstrap.servers                      host:port of brokers of the source, with commas between them
//	topics, exclude                        lists of patterns for names of topics at the source, as mirror/names reads them
//	prefix, rename                         the names here, as mirror/names reads them
//	start                                  earliest, latest, or a time of RFC 3339; unset: earliest
//	map                                    ADVERTISED=REACHABLE, host:port each, with commas between them
//	throttle.bytes.per.second              how much all nodes together read from the source; unset: as much as they can
//	accept.loss                            true: losses are noted and left out, and no person is asked; unset: false
//	client.rack                            where the nodes are, so that replicas at the source near them are read
//	security.protocol                      one of Kafka's names; unset: PLAINTEXT
//	sasl.mechanism, sasl.username          SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, and who logs in
//	ssl.truststore.certificates            PEM, whom to trust; unset: whom the system of the node trusts
//	ssl.keystore.certificate.chain         PEM, the certificates that a node shows
//	ssl.endpoint.identification.algorithm  empty: the names in certificates are not checked; unset: they are
//
// Secrets have the other ones:
//
//	sasl.password     of sasl.username
//	ssl.keystore.key  PEM, the key of ssl.keystore.certificate.chain
type LinkRequest struct {
	Verb     LinkVerb           `json:"verb"`
	Name     string             `json:"name,omitempty"`
	Settings []meta.LinkSetting `json:"settings,omitempty"` // of LinkCreate and LinkCheck all, of LinkAlter those that change
	Unset    []string           `json:"unset,omitempty"`    // of LinkAlter: keys of settings that go back to their defaults
	// Secrets are what a login needs that is not shown. nil with LinkAlter: they stay as they are; empty: there are none any more.
	Secrets    LinkSecrets `json:"secrets"`
	Topics     []string    `json:"topics,omitempty"`     // by their names here
	Partitions []int32     `json:"partitions,omitempty"` // of LinkSkip
	DryRun     bool        `json:"dryRun,omitempty"`     // validate and say what would be done, and change nothing
	Force      bool        `json:"force,omitempty"`      // of LinkCreate and LinkAlter: whatever problems there are
	// Within is for how long a node may validate, in ns. What has not answered by then is a problem.
	Within time.Duration `json:"within,omitempty"`
	// After is, of LinkDescribe, the partition after which the list goes on; nil: from the first one on.
	After *PartitionPlace `json:"after,omitempty"`
}

// The keys of secrets.
const (
	PasswordKey = "sasl.password"
	KeyKey      = "ssl.keystore.key"
)

// LinkSecrets are secret settings of a link: see LinkRequest.
type LinkSecrets []meta.LinkSetting

// Format prints how many there are, whatever the verb.
func (s LinkSecrets) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "%d secrets", len(s)) }

// PartitionPlace is the place of a partition in a list in the order of topics, by their names here, and of their partitions.
type PartitionPlace struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// LinkAnswer is the answer to a LinkRequest. It has no secret. What was refused also comes with it, as far as it is known.
type LinkAnswer struct {
	// Existed tells of LinkCreate that there was a link of the name. Differences are then what it has and was not asked for, or the other way round; none: it is the same one.
	Existed     bool             `json:"existed,omitempty"`
	Differences []LinkDifference `json:"differences,omitempty"`
	Changed     bool             `json:"changed,omitempty"` // something was changed, or would be without DryRun
	Source      string           `json:"source,omitempty"`  // the cluster id of the source, if it has answered

	Problems []LinkProblem `json:"problems,omitempty"` // what keeps the link from mirroring: with one, LinkCreate and LinkAlter change nothing without Force
	Warnings []LinkProblem `json:"warnings,omitempty"` // what a person ought to know, and what keeps nothing from going on
	Steps    []string      `json:"steps,omitempty"`    // what was found to be in order, and what was done, each in one sentence without a full stop
	Topics   []LinkTopic   `json:"topics,omitempty"`   // of LinkCreate, LinkAlter and LinkCheck: the first MaxLinkTopics topics that are, or would be, mirrored
	More     int           `json:"more,omitempty"`     // how many more topics or partitions there are

	Links      []LinkStatus      `json:"links,omitempty"`      // of LinkList all, in the order of their names, with no settings but bootstrap.servers; of LinkDescribe the one
	Partitions []PartitionStatus `json:"partitions,omitempty"` // of LinkDescribe, in the order of PartitionPlace; More of them are got with After
	Silent     []SilentNode      `json:"silent,omitempty"`     // of LinkList and LinkDescribe: nodes that have not answered, whose partitions are not known

	Tails TailSum        `json:"tails,omitzero"`  // of LinkDescribe: what cuts have taken from replicas of the link's topics, and is kept
	Uncut []UncutReplica `json:"uncut,omitempty"` // of LinkDescribe: replicas of the link's topics that cannot make a cut
}

// MaxLinkTopics is how many topics LinkAnswer.Topics has at most.
const MaxLinkTopics = 500

// LinkProblem says what is wrong, and what to do about it. Both are whole sentences for people.
type LinkProblem struct {
	About string `json:"about"` // what it concerns: an address, a topic, a right, the cluster
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"`
}

// LinkDifference is a setting of a link that is there which is not as it was asked for. Of a secret, and of whether the login is another one, there are no values.
type LinkDifference struct {
	Key   string  `json:"key"`
	Has   *string `json:"has,omitempty"`   // nil: it is not set
	Asked *string `json:"asked,omitempty"` // nil: it was not asked for
}

// LinkTopic is a topic that a link mirrors, or would.
type LinkTopic struct {
	Source     string `json:"source"` // its name there
	Name       string `json:"name"`   // its name here
	Partitions int32  `json:"partitions"`
}

// LinkStatus tells how a link does, over all of its partitions.
type LinkStatus struct {
	ID       meta.UUID          `json:"id"`
	Name     string             `json:"name"`
	Source   string             `json:"source"` // the cluster id of the source
	Settings []meta.LinkSetting `json:"settings"`
	Secrets  bool               `json:"secrets"` // it has some
	Paused   bool               `json:"paused"`
	Topics   int                `json:"topics"`
	States   map[string]int     `json:"states"` // how many of its partitions are in each state: see PartitionStatus.State

	Lag         Lag          `json:"lag"`         // records and bytes of all partitions together, and the longest times, as far as they are known
	Unknown     int          `json:"unknown"`     // partitions whose lag is not wholly known, without those that were promoted
	LastContact time.Time    `json:"lastContact"` // the latest of all partitions; zero: there was none
	Tasks       []TaskStatus `json:"tasks"`
}

// Lag is how far behind the source something is. Nothing that is known is negative; -1: it is not known.
type Lag struct {
	Records int64         `json:"records"`
	Bytes   int64         `json:"bytes"`  // about
	Behind  time.Duration `json:"behind"` // in ns: 0 while all that the source is known to have is here, and else RPO
	// RPO is how long ago, at most, all that the source had committed was here, in ns: a failover now would lose what was written since.
	RPO time.Duration `json:"rpo"`
}

// UnknownLag is the lag of what nobody knows.
func UnknownLag() Lag { return Lag{-1, -1, -1, -1} }

// Add adds the lag of a partition: records and bytes are summed up, and the longest times count. What is not known does not.
func (l *Lag) Add(o *Lag) {
	l.Records, l.Bytes = l.Records+max(o.Records, 0), l.Bytes+max(o.Bytes, 0)
	l.Behind, l.RPO = max(l.Behind, o.Behind), max(l.RPO, o.RPO)
}

// isKnown tells whether everything of it is known.
func (l *Lag) isKnown() bool { return l.Records >= 0 && l.RPO >= 0 }

// StateUnknown is the state of a partition that no node has told of: it has no leader, or the leader's node has not answered.
const StateUnknown = "UNKNOWN"

// PartitionStatus tells how a partition does that mirrors.
type PartitionStatus struct {
	Link meta.UUID `json:"link"`
	PartitionPlace
	Source string `json:"source"` // the topic's name there
	Node   int32  `json:"node"`   // who leads it here; -1: nobody does
	State  string `json:"state"`  // the name of a state of mirror/progress; or StateUnknown
	Reason string `json:"reason,omitempty"`
	// From and To are, with GAP and TOMBSTONES_LOST, the offsets that are, or may be, lost: from From on and below To. Else both are 0.
	From int64 `json:"from,omitempty"`
	To   int64 `json:"to,omitempty"`

	End         int64         `json:"end"`       // of the log here; -1: not known
	SourceEnd   int64         `json:"sourceEnd"` // the source's high watermark; -1: not known
	Lag         Lag           `json:"lag"`
	LastContact time.Time     `json:"lastContact,omitzero"` // with the source, about this partition
	RetryIn     time.Duration `json:"retryIn,omitempty"`    // with WAITING, in ns
}

// TaskStatus tells how a task of a link does, which runs on one node for the whole link.
type TaskStatus struct {
	Link   meta.UUID `json:"link"`
	Task   string    `json:"task"` // in a word: topics, configs, positions
	Node   int32     `json:"node"`
	State  string    `json:"state"` // RUNNING, WAITING (the last round has failed, for Reason, and is tried again), PAUSED
	Reason string    `json:"reason,omitempty"`
	Last   time.Time `json:"last,omitzero"` // when its last round was well
}

// SilentNode is a node that has not answered.
type SilentNode struct {
	Node    int32  `json:"node"`
	Problem string `json:"problem"`
}

// UncutReplica is a replica that cannot make a cut of the metadata: it neither leads nor follows until it can.
type UncutReplica struct {
	PartitionPlace
	Node    int32  `json:"node"`
	Problem string `json:"problem"`
}

// TailSum is how many tails there are.
type TailSum struct {
	Tails int   `json:"tails"`
	Bytes int64 `json:"bytes"`
}

// LinkServer is what a node does about links. Package node implements it; nil in ControllerConfig.Linking: the node has no links. All methods may be called concurrently.
type LinkServer interface {
	// ListMirrors tells of the partitions that this node leads and that mirror by a link, in any order. It takes no time: it asks nobody.
	ListMirrors(link meta.UUID) []PartitionStatus
	// ListTasks tells of the tasks of links that run on this node. It asks nobody.
	ListTasks() []TaskStatus
	// ServeLink serves a request of the holder of its data directory, of any verb but LinkList and LinkDescribe: it asks the source, and has the active controller change the
	// metadata. Requests may be repeated after a lost answer. The name is a legal one, and, but for LinkCreate and a LinkCheck with Settings, there was such a link when the request
	// came; it may be gone by now. What it returns of a secret is that there is one.
	ServeLink(ctx context.Context, q *LinkRequest) (LinkAnswer, *controller.Error, error)
}
