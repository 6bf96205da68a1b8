package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
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
	// LinkRestore has Topics of this cluster, or without any all that the link is for, mirror those of the source, which has mirrored them from here and was promoted. What is here beyond the place where
	// both part is cut, and kept aside.
	LinkRestore LinkVerb = "restore"
	// LinkPromote begins the promotion of Topics; without any, of all topics of the link: they follow the source no more, and become ordinary ones. If some partition lacks anything that the
	// source has, or the source does not answer, that is a problem, and nothing is changed. LinkFailover does the same for a source that is gone: that it answers is a problem, unless there is Force.
	LinkPromote  LinkVerb = "promote"
	LinkFailover LinkVerb = "failover"
	// LinkCheck validates a link that is there, by Name, or one that is not, by Settings and Secrets.
	LinkCheck LinkVerb = "check"

	// LinkAgentToken has the link know a token for an agent, Agent, and LinkAgentRevoke has it forget the one with the id Token: its agent is let in no more.
	LinkAgentToken  LinkVerb = "agent-token"
	LinkAgentRevoke LinkVerb = "agent-revoke"

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
//	groups, groups.exclude                 lists of patterns for names of consumer groups whose positions are followed; unset: all groups
//	positions                              on, or off: no positions are followed; unset: on
//	acls, quotas                           on: those of the source are here, too; unset: off
//	acls.all.names, quotas.defaults        true: also those that are for all names, or for all who have none of their own
//	acls.groups, acls.groups.exclude       lists of patterns for consumer groups of which ACLs are followed; unset: all
//	acls.transactional.ids, .exclude       lists of patterns for transactional ids of which ACLs are followed; unset: all
//	quotas.client.ids, .exclude            lists of patterns for client ids of which quotas are followed; unset: all
//	principals, principals.exclude         lists of patterns for principals of which ACLs and quotas are followed; unset: all
//	principals.map                         other names for principals here, as mirror/follow reads them
//	via                                    agent: agents of the link carry the connections to the source; unset: the nodes dial it
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
	Force      bool        `json:"force,omitempty"`      // of LinkCreate, LinkAlter and LinkFailover: whatever problems there are
	// Within is for how long a node may validate, in ns. What has not answered by then is a problem.
	Within time.Duration `json:"within,omitempty"`
	// After is, of LinkDescribe, the partition after which the list goes on; nil: from the first one on.
	After *PartitionPlace `json:"after,omitempty"`
	// Agent is a new token, of LinkAgentToken; its secret stays with who has made it. Token is the id of one, of LinkAgentRevoke.
	Agent *meta.LinkAgent    `json:"agent,omitempty"`
	Token credential.TokenID `json:"token,omitzero"`
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

	Tokens []AgentToken  `json:"tokens,omitempty"` // for agents
	Agents []AgentStatus `json:"agents,omitempty"` // that are connected, by node
}

// AgentToken is a token for an agent of a link.
type AgentToken struct {
	ID      string    `json:"id"`
	Used    bool      `json:"used"` // by an agent, which keeps it
	Expires time.Time `json:"expires"`
}

// AgentStatus tells of the connection of an agent to a node.
type AgentStatus struct {
	Link      meta.UUID `json:"link"`
	Token     string    `json:"token"` // its id
	Name      string    `json:"name"`  // as the agent says
	Node      int32     `json:"node"`
	Remote    string    `json:"remote"` // its address
	Since     time.Time `json:"since"`
	Streams   int       `json:"connections"`        // to brokers
	Problem   string    `json:"problem,omitempty"`  // why the last broker was not reached that it should dial; "": it was
	ProblemAt time.Time `json:"problemAt,omitzero"` // of the last one that was not reached
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
	Open        int           `json:"open"`                 // with MIRRORING: how many transactions are open here; -1: not known
	// Parting is what was known of the source when the partition was promoted; nil: it was not.
	Parting *PartingStatus `json:"parting,omitempty"`
}

// PartingStatus tells, of a partition that was promoted, what was known of its source when that began.
type PartingStatus struct {
	State     string `json:"state"`     // what the partition did until then, as in PartitionStatus.State; StateUnknown
	End       int64  `json:"end"`       // from where on records of the source are missing here; -1: not known
	Start     int64  `json:"start"`     // from where on clients write here; -1: not known
	SourceEnd int64  `json:"sourceEnd"` // the last high watermark of the source that was known; -1: none was
	Records   int64  `json:"records"`   // how many offsets lie between End and SourceEnd; -1: not known
	Bytes     int64  `json:"bytes"`     // about how many bytes; -1: not known
	// Contact is when the source last answered, AsOf a time at which it had committed nothing that is not here, and Begun when the promotion began; zero: not known.
	Contact time.Time `json:"contact,omitzero"`
	AsOf    time.Time `json:"asOf,omitzero"`
	Begun   time.Time `json:"begun,omitzero"`
	// Transactions are those that were open then, or are missing here, and have not ended here as at the source, or of which that is not known: the first of them, and how many there are More.
	Transactions []PartedTransaction `json:"transactions,omitempty"`
	More         int                 `json:"more,omitempty"`
}

// PartedTransaction tells how a transaction has ended in a partition that was promoted.
type PartedTransaction struct {
	Producer int64  `json:"producer"`
	Epoch    int16  `json:"epoch"` // of its records
	First    int64  `json:"first"` // the offset of the first one; -1: the partition has ended it before, or has none of them
	Commit   bool   `json:"commit"`
	Outcome  string `json:"outcome"` // COMMITTED_BY_MARKER, ABORTED_UNDECIDED, ABORTED_LACKING or TORN: those outcomes of mirror/progress that are to be listed; or StateUnknown
}

// TaskStatus tells how a task of a link does, which runs on one node for the whole link.
type TaskStatus struct {
	Link   meta.UUID `json:"link"`
	Task   string    `json:"task"` // in a word: topics, configs, positions, acls, quotas
	Node   int32     `json:"node"`
	State  string    `json:"state"` // RUNNING, WAITING (the last round has failed, for Reason, and is tried again), PAUSED
	Reason string    `json:"reason,omitempty"`
	Last   time.Time `json:"last,omitzero"` // when its last round was well; of positions: of when all that the source had then is here
	// Positions tells more of the task for positions; nil: it is another one.
	Positions *PositionsStatus `json:"positions,omitempty"`

	// With LinkDescribe, and its first page alone: all that a person ought to know, each a sentence, and the configs of mirrors that are not as at the source, or were not.
	Notes       []string           `json:"notes,omitempty"`
	Differences []ConfigDifference `json:"differences,omitempty"`
}

// PositionsStatus tells how a link has the positions of consumer groups follow those of its source.
type PositionsStatus struct {
	Mode      string         `json:"mode"`           // tailed, polled, off; empty: it is not known yet
	Why       string         `json:"why,omitempty"`  // it is polled
	Groups    int            `json:"groups"`         // of the source that have positions, of those that the link follows
	Positions int            `json:"positions"`      // of these groups
	Open      int            `json:"open"`           // transactions of the source that are open and have positions
	Loading   int            `json:"loading"`        // partitions of the source's records that were not read up to their ends yet
	Ahead     time.Duration  `json:"ahead"`          // by which the source's clock is ahead, in ns, if it is
	Held      map[string]int `json:"held,omitempty"` // how many positions stay as they are here although the source has others, by the reason
}

// ConfigDifference is a config of a topic that is not as at the source, or was not.
type ConfigDifference struct {
	Topic  string    `json:"topic"` // by its name here
	Key    string    `json:"key"`
	Source string    `json:"source"` // the value there
	Here   string    `json:"here"`   // the value here; of one that was put back: what it was
	Fate   string    `json:"fate"`   // KEPT, or PUT_BACK
	Why    string    `json:"why,omitempty"`
	At     time.Time `json:"at"` // when it was seen to be so
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
	// ListTasks tells of the tasks of links that run on this node, with their notes and differences. It asks nobody.
	ListTasks() []TaskStatus
	// ListAgents tells of the agents of links that are connected to this node. It asks nobody.
	ListAgents() []AgentStatus
	// ServeLink serves a request of the holder of its data directory, of any verb but LinkList and LinkDescribe: it asks the source, and has the active controller change the
	// metadata. Requests may be repeated after a lost answer. The name is a legal one, and, but for LinkCreate and a LinkCheck with Settings, there was such a link when the request
	// came; it may be gone by now. What it returns of a secret is that there is one.
	ServeLink(ctx context.Context, q *LinkRequest) (LinkAnswer, *controller.Error, error)
	// AnswerClaims answers the question of a node that promotes topics: see AskClaims. It asks nobody. The answer has at most half a megabyte, about.
	AnswerClaims(question json.RawMessage) (json.RawMessage, error)
}
