package admin

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
)

// askNodeTime is how long a node of the cluster may take to answer what only it can answer. The others
// are shown without it.
const askNodeTime = 2 * time.Second

// unknown stands for a number that a cluster does not tell.
const unknown = -1

// Cluster is what a cluster tells of itself, of its nodes and of its partitions. A number below 0 is not
// known, and neither is an empty text, unless it says otherwise.
type Cluster struct {
	ID         string `json:"id"`
	Controller int32  `json:"controller"`
	Feature    string `json:"metadata_feature,omitempty"` // whose levels are meant: one of levelFeatures
	Level      int16  `json:"metadata_level"`             // the one that is in force
	// TransactionLevel is the level of TransactionLevels that is in force; 0: none is, as before there was such a feature.
	TransactionLevel int16  `json:"transaction_level"`
	Brokers          []Node `json:"brokers"`
	// Others only keep metadata.
	Others          []Node `json:"others,omitempty"`
	Topics          int    `json:"topics"`
	Internal        int    `json:"internal_topics"` // of these, such as the one for committed offsets
	Partitions      int    `json:"partitions"`
	Offline         int    `json:"offline_partitions"`          // that nobody leads
	UnderReplicated int    `json:"under_replicated_partitions"` // of which a replica is not in sync
	// Voters is how many nodes vote on the metadata; 0: the cluster does not tell. WantedVoters is how many are to, while these are more.
	Voters       int `json:"voters,omitempty"`
	WantedVoters int `json:"wanted_voters,omitempty"`
	// Note is what the cluster says of itself beyond all this, in sentences.
	Note string `json:"note,omitempty"`
	// NotTold are the facts that the cluster does not tell.
	NotTold []string `json:"not_told,omitempty"`
}

// Node is a node of a cluster.
type Node struct {
	ID      int32  `json:"id"`
	Address string `json:"address"`
	Rack    string `json:"rack,omitempty"` // "": it has none
	State   State  `json:"state,omitempty"`
	Role    string `json:"role,omitempty"` // in keeping the metadata: leader, voter or observer
	Lag     int64  `json:"lag"`            // entries of the metadata behind the leader
	// The lowest and the highest level of the metadata that the node's program knows.
	LowestLevel  int16 `json:"lowest_level"`
	HighestLevel int16 `json:"highest_level"`
	// HighestTransactions is the highest level of TransactionLevels that the node's program knows; 0: it knows no such feature.
	HighestTransactions int16 `json:"highest_transaction_level"`
	Leads               int   `json:"leads"`    // partitions
	Replicas            int   `json:"replicas"` // of partitions
	LogBytes            int64 `json:"log_bytes"`
	DiskTotal           int64 `json:"disk_total"`
	DiskUsable          int64 `json:"disk_usable"`
	// Silent says why the node did not answer for itself; "": it did, or was not asked.
	Silent string `json:"silent,omitempty"`
	// err is the failure that Silent is about.
	err error
}

// Err is why the node did not answer for itself; nil: it did, or was not asked.
func (n *Node) Err() error { return n.err }

// State is the state of a broker as clients see it.
type State string

// The states of a broker.
const (
	Active  State = "active"
	Leaving State = "leaving" // it is moving its leaders to other brokers; only Leat tells
	Fenced  State = "fenced"  // it serves nothing
)

// DescribeCluster asks for a cluster. Facts that the cluster does not tell, or that a node which does not
// answer would tell, are missing in the answer.
func DescribeCluster(ctx context.Context, cl *kgo.Client) (*Cluster, error) {
	answering, served, err := findAnswering(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("asking for API versions: %w", err)
	}
	m, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, answering)
	if err == nil {
		err = refusal("the cluster", m.ErrorCode, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the cluster: %w", err)
	}
	c := &Cluster{ID: textOrEmpty(m.ClusterID), Controller: m.ControllerID, Level: unknown}
	if err := c.addBrokers(ctx, answering, m.Brokers, served); err != nil {
		return nil, err
	}
	c.addPartitions(m.Topics)
	if err := c.addQuorum(ctx, answering, served); err != nil {
		return nil, err
	}
	c.Feature, c.Level = findLevel(served)
	c.TransactionLevel = finalizedLevel(served, TransactionLevels)
	c.askBrokers(ctx, cl)
	c.noteUntold()
	return c, nil
}

// findAnswering finds a broker that answers, and the versions of the requests that it serves. A broker that is hung
// would hold up each question that comes to it. The others are asked, too, when those that the client began with
// are silent.
func findAnswering(ctx context.Context, cl *kgo.Client) (*kgo.Broker, *kmsg.ApiVersionsResponse, error) {
	type answer struct {
		from   *kgo.Broker
		served *kmsg.ApiVersionsResponse
		err    error
	}
	ctx, cancel := context.WithCancel(ctx) // the other questions end with the first answer
	defer cancel()
	answers := make(chan answer)
	asked := 0
	ask := func(brokers []*kgo.Broker) {
		for _, b := range brokers {
			asked++
			go func() {
				served, err := askAPIs(ctx, b.Request)
				select {
				case answers <- answer{b, served, err}:
				case <-ctx.Done():
				}
			}()
		}
	}
	ask(cl.SeedBrokers())
	silent := time.NewTimer(askNodeTime)
	defer silent.Stop()
	askedAll := false
	askRest := func() {
		if !askedAll {
			askedAll = true
			ask(cl.DiscoveredBrokers())
		}
	}
	var failed error
	for n := 0; ; n++ {
		if n == asked {
			if askRest(); n == asked {
				return nil, nil, failed
			}
		}
		select {
		case a := <-answers:
			if a.err == nil {
				return a.from, a.served, nil
			}
			failed = a.err
		case <-silent.C:
			n--
			askRest()
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func newNode(id int32, host string, port int32, rack *string) Node {
	return Node{
		ID: id, Address: net.JoinHostPort(host, strconv.Itoa(int(port))), Rack: textOrEmpty(rack),
		Lag: unknown, LowestLevel: unknown, HighestLevel: unknown, HighestTransactions: unknown, LogBytes: unknown, DiskTotal: unknown, DiskUsable: unknown,
	}
}

// requestFunc sends a request to some node.
type requestFunc = func(ctx context.Context, req kmsg.Request) (kmsg.Response, error)

// askAPIs asks a node for the versions of the requests that it serves.
func askAPIs(ctx context.Context, ask requestFunc) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "leat", "1"
	return askNode[*kmsg.ApiVersionsResponse](ctx, ask, req)
}

// askNode sends a request, and returns the answer in its type.
func askNode[R kmsg.Response](ctx context.Context, ask requestFunc, req kmsg.Request) (answer R, err error) {
	resp, err := ask(ctx, req)
	if err != nil {
		return answer, err
	}
	answer, ok := resp.(R)
	if !ok {
		return answer, fmt.Errorf("the answer to %s is that to another request", kmsg.NameForKey(req.Key()))
	}
	return answer, nil
}

// highestVersion is the highest version of a request that a node serves, or -1.
func highestVersion(served *kmsg.ApiVersionsResponse, key int16) int16 {
	for i := range served.ApiKeys {
		if served.ApiKeys[i].ApiKey == key {
			return served.ApiKeys[i].MaxVersion
		}
	}
	return -1
}

// fencedSince is the version of DescribeCluster from which on a cluster tells of fenced brokers.
const fencedSince = 2

// addBrokers adds the brokers, also those that are fenced if the cluster tells of them.
func (c *Cluster) addBrokers(ctx context.Context, from kmsg.Requestor, active []kmsg.MetadataResponseBroker, served *kmsg.ApiVersionsResponse) error {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType, req.IncludeFencedBrokers = 1, true
	if highestVersion(served, req.Key()) < fencedSince {
		c.NotTold = append(c.NotTold, "which nodes are fenced")
		for i := range active {
			b := &active[i]
			n := newNode(b.NodeID, b.Host, b.Port, b.Rack)
			n.State = Active
			c.Brokers = append(c.Brokers, n)
		}
	} else {
		resp, err := req.RequestWith(ctx, from)
		if err == nil {
			err = refusal("the cluster", resp.ErrorCode, resp.ErrorMessage)
		}
		if err != nil {
			return fmt.Errorf("asking for the brokers: %w", err)
		}
		c.Note = readNote(&resp.UnknownTags)
		for i := range resp.Brokers {
			b := &resp.Brokers[i]
			n := newNode(b.NodeID, b.Host, b.Port, b.Rack)
			switch {
			case b.IsFenced:
				n.State = Fenced
			case readNote(&b.UnknownTags) == config.LeavingNote:
				n.State = Leaving
			default:
				n.State = Active
			}
			c.Brokers = append(c.Brokers, n)
		}
	}
	slices.SortFunc(c.Brokers, compareNodes)
	return nil
}

// refusal makes an error of a code.
func refusal(of string, code int16, message *string) error {
	if err := kerr.ErrorForCode(code); err != nil {
		return &RefusedError{Of: of, Err: err, Message: textOrEmpty(message)}
	}
	return nil
}

func compareNodes(a, b Node) int { return cmp.Compare(a.ID, b.ID) }

// addPartitions counts partitions, those of each broker and those that are not as they should be.
func (c *Cluster) addPartitions(topics []kmsg.MetadataResponseTopic) {
	nodes := map[int32]*Node{}
	for i := range c.Brokers {
		nodes[c.Brokers[i].ID] = &c.Brokers[i]
	}
	c.Topics = len(topics)
	for i := range topics {
		if topics[i].IsInternal {
			c.Internal++
		}
		for k := range topics[i].Partitions {
			p := &topics[i].Partitions[k]
			c.Partitions++
			if p.Leader < 0 {
				c.Offline++
			} else if n := nodes[p.Leader]; n != nil {
				n.Leads++
			}
			if len(p.ISR) < len(p.Replicas) {
				c.UnderReplicated++
			}
			for _, id := range p.Replicas {
				if n := nodes[id]; n != nil {
					n.Replicas++
				}
			}
		}
	}
}

// addQuorum adds the roles of nodes in keeping the metadata, and the nodes that do nothing else.
func (c *Cluster) addQuorum(ctx context.Context, from kmsg.Requestor, served *kmsg.ApiVersionsResponse) error {
	if highestVersion(served, kmsg.DescribeQuorum.Int16()) < 0 {
		c.NotTold = append(c.NotTold, "which nodes keep its metadata")
		return nil
	}
	q, err := askQuorum(ctx, from)
	if err != nil {
		return err
	}
	c.Controller, c.Voters, c.WantedVoters = q.Leader, q.CountVoters(), q.WantedVoters
	c.Note = strings.TrimSpace(c.Note + " " + q.Note)
	for _, r := range q.Replicas {
		i, isBroker := slices.BinarySearchFunc(c.Brokers, r.ID, func(n Node, id int32) int { return cmp.Compare(n.ID, id) })
		if isBroker {
			c.Brokers[i].Role, c.Brokers[i].Lag = r.Role, r.Lag
			continue
		}
		n := newNode(r.ID, "", 0, nil)
		n.Address, n.Role, n.Lag = r.address, r.Role, r.Lag
		c.Others = append(c.Others, n)
	}
	slices.SortFunc(c.Others, compareNodes)
	return nil
}

// askBrokers asks all brokers that are not fenced, at the same time, for what only they know.
func (c *Cluster) askBrokers(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, askNodeTime)
	defer cancel()
	var asking sync.WaitGroup
	for i := range c.Brokers {
		if n := &c.Brokers[i]; n.State != Fenced {
			asking.Go(func() {
				if n.err = n.askDetails(ctx, cl.Broker(int(n.ID)).Request, c.Feature); n.err != nil {
					n.Silent = n.err.Error()
				}
			})
		}
	}
	asking.Wait()
}

// askDetails asks a node for the levels that its program knows, and for its disk.
func (n *Node) askDetails(ctx context.Context, ask requestFunc, feature string) error {
	served, err := askAPIs(ctx, ask)
	if err != nil {
		return err
	}
	n.HighestTransactions = 0
	for _, f := range served.SupportedFeatures {
		switch f.Name {
		case feature:
			n.LowestLevel, n.HighestLevel = f.MinVersion, f.MaxVersion
		case TransactionLevels:
			n.HighestTransactions = f.MaxVersion
		}
	}
	req := kmsg.NewPtrDescribeLogDirsRequest()
	if highestVersion(served, req.Key()) < 0 {
		return nil
	}
	dirs, err := askNode[*kmsg.DescribeLogDirsResponse](ctx, ask, req)
	if err != nil {
		return err
	}
	for i := range dirs.Dirs {
		n.addDirectory(&dirs.Dirs[i])
	}
	return nil
}

// addDirectory adds a directory of a broker. Those that have failed tell no sizes.
func (n *Node) addDirectory(d *kmsg.DescribeLogDirsResponseDir) {
	if d.ErrorCode != 0 {
		return
	}
	n.LogBytes = max(0, n.LogBytes)
	for _, t := range d.Topics {
		for _, p := range t.Partitions {
			n.LogBytes += p.Size
		}
	}
	if d.TotalBytes >= 0 && d.UsableBytes >= 0 {
		n.DiskTotal = max(0, n.DiskTotal) + d.TotalBytes
		n.DiskUsable = max(0, n.DiskUsable) + d.UsableBytes
	}
}

// noteUntold notes the facts of which no node tells anything, though nodes have answered.
func (c *Cluster) noteUntold() {
	answered := slices.ContainsFunc(c.Brokers, func(n Node) bool { return n.State != Fenced && n.err == nil })
	none := func(knows func(n *Node) bool) bool {
		for i := range c.Brokers {
			if knows(&c.Brokers[i]) {
				return false
			}
		}
		return answered
	}
	if c.Feature == "" || none(func(n *Node) bool { return n.HighestLevel >= 0 }) {
		c.NotTold = append(c.NotTold, "which levels of its metadata its nodes know")
	}
	if none(func(n *Node) bool { return n.DiskTotal >= 0 }) {
		c.NotTold = append(c.NotTold, "how much room its disks have")
	}
}
