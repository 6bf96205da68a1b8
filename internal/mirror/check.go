package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/source"
	"github.com/leatstream/leat/internal/mirror/tunnel"
)

const (
	// checkedTopics is of how many topics the rights are checked, and probesAtOnce how many brokers are dialled at a time.
	checkedTopics = 200
	probesAtOnce  = 16
	// mostSkew is by how much the clocks of two clusters may differ before a check warns.
	mostSkew = 2 * time.Second
)

// Finding is something that a person ought to know of a link, and what to do about it. Both are whole sentences.
type Finding struct{ About, Text, Do string }

// Report is what a check of a link has found.
type Report struct {
	Source   string    // the cluster id of the source; "": it has not answered
	Tag      uint32    // of the source, if it is a Leat; 0: it has none
	Problems []Finding // what keeps the link from mirroring
	Warnings []Finding
	Steps    []string  // what is in order
	Topics   []Planned // that are mirrored, or would be
}

func (r *Report) problem(about, text, do string) {
	r.Problems = append(r.Problems, Finding{about, text, do})
}

func (r *Report) step(format string, args ...any) {
	r.Steps = append(r.Steps, fmt.Sprintf(format, args...))
}

// Check validates a link, before it is made or later: whether its source can be reached at all of its addresses, and lets the link do what it has to. Nothing is changed. secrets are as EncodeSecrets makes
// them. The link need have no id and no Source.
func (s *Service) Check(ctx context.Context, l *meta.Link, secrets []byte) *Report {
	c := check{s: s, link: l, r: &Report{}}
	defer func() { s.noteCheck(l, c.r) }()
	var err error
	if c.set, err = ParseSettings(l.Settings, secrets); err != nil {
		c.r.problem("settings", sentence(err), "")
		return c.r
	}
	if c.set.viaAgent && len(l.Agents) == 0 {
		c.r.Warnings = append(c.r.Warnings, Finding{
			"agent", "Nothing was asked of the source: it is reached by agents, and there is no token yet with which one could connect.",
			`Make a token ("leat link agent-token NAME"), start the agent beside the source ("leat link agent"), and check the link then ("leat link doctor NAME").`,
		})
		return c.r
	}
	if c.client, err = c.connect(ctx); err != nil {
		text, do := explainDial(err)
		c.r.problem(strings.Join(c.set.Brokers, ","), text, do)
		return c.r
	}
	defer c.client.Close()
	if !c.checkCluster(ctx) {
		return c.r
	}
	c.checkBrokers(ctx)
	c.checkTopics(ctx)
	c.checkAccess(ctx)
	c.checkPositions(ctx)
	c.checkClock(ctx)
	return c.r
}

// check is one check of a link.
type check struct {
	s       *Service
	link    *meta.Link
	set     *Settings
	client  *source.Client
	cluster *source.Cluster
	r       *Report
}

func (c *check) connect(ctx context.Context) (*source.Client, error) {
	cfg, err := c.set.sourceConfig(c.s.clientID())
	if err != nil {
		return nil, err
	}
	cfg.Dial = c.s.dialer(c.link, c.set)
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	return source.New(ctx, cfg)
}

// explainDial explains why a source is not reached.
func explainDial(err error) (text, do string) {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, tunnel.ErrNoAgent):
		return "No agent of the link is connected to the node that was asked, so that the source cannot be reached.", `See to it that "leat link agent" runs beside the source, and look at its log: it dials each node of this cluster.`
	case errors.Is(err, tunnel.ErrRefused):
		return sentence(err), "Start the agent with --allow for the address, if it is right."
	case errors.Is(err, source.ErrOld):
		return "The source is too old to be mirrored.", "Upgrade it to Apache Kafka 2.1 or a later one."
	case source.IsLoginRefused(err):
		return "The source refuses the login: " + sentence(err), "Check the user, the password and the mechanism."
	case errors.As(err, &unknown):
		return "The source shows a certificate of somebody who is not trusted: " + sentence(err), "Give the link the certificate of the source's authority."
	case errors.As(err, &record):
		return "The source does not speak TLS on that port: " + sentence(err), "Have the link use another port, or another security protocol."
	case errors.Is(err, context.DeadlineExceeded):
		return "The source has not answered in time: " + sentence(err), "Check the address, firewalls between the clusters, and whether the port is one with TLS or a login."
	}
	return "The source cannot be reached: " + sentence(err), "Check that it runs, the address, and firewalls between the clusters."
}

// sentence makes a sentence of an error.
func sentence(err error) string {
	text := strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(reasonOf(err), "\n", "; ")), ".")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// checkCluster finds out which cluster it is; ok is false if there is nothing more to check.
func (c *check) checkCluster(ctx context.Context) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var err error
	if c.cluster, err = c.client.Describe(ctx, nil); err != nil {
		text, do := explainDial(err)
		c.r.problem("cluster", text, do)
		return false
	}
	img := c.s.cfg.Image()
	switch c.r.Source = c.cluster.ID; {
	case c.cluster.ID == "":
		c.r.problem("cluster", "The source does not tell its cluster id, without which cycles of links cannot be found.", "Mirror from a cluster that has one.")
	case c.link.Source != "" && c.link.Source != c.cluster.ID:
		c.r.problem("cluster", fmt.Sprintf("The addresses lead to the cluster %s, and the link's source is %s.", c.cluster.ID, c.link.Source), "Name brokers of the link's source, or make another link.")
	default:
		return c.checkIdentity(ctx, img)
	}
	return false
}

// checkIdentity compares what the clusters are with each other; ok is false if there is nothing more to check.
func (c *check) checkIdentity(ctx context.Context, img *meta.Image) (ok bool) {
	var err error
	if c.r.Tag, err = c.client.ClusterTag(ctx, anyTopic(c.cluster)); err != nil {
		c.r.step("the source does not tell the tag of its producer ids: %v", err)
	}
	others := otherSources(img, c.link.ID)
	for _, o := range others {
		if o.ID == c.cluster.ID {
			c.r.Warnings = append(c.r.Warnings, Finding{"cluster", fmt.Sprintf("The link %s is from the same cluster.", o.Name), "See to it that the two are for different topics, or get different names for them."})
		}
	}
	warnings, err := follow.CheckClusters(follow.Cluster{ID: img.ClusterID, Tag: img.Tag}, follow.Cluster{Name: c.link.Name, ID: c.cluster.ID, Tag: c.r.Tag}, others)
	switch {
	case errors.Is(err, follow.ErrSameCluster):
		c.r.problem("cluster", "The addresses lead to this cluster itself, or to a copy of it that has its id.", "Name brokers of the other cluster.")
	case err != nil:
		c.r.problem("cluster", sentence(err), "")
	default:
		c.r.step("the cluster %s answers, with %s", c.cluster.ID, countOf(len(c.cluster.Brokers), "broker"))
	}
	for _, w := range warnings {
		c.r.Warnings = append(c.r.Warnings, Finding{About: "producers", Text: w})
	}
	return err == nil
}

// otherSources are the sources of all links but one, as far as they are known.
func otherSources(img *meta.Image, link meta.UUID) (others []follow.Cluster) {
	for _, o := range img.Links().All() {
		if o.ID == link || o.Source == "" {
			continue
		}
		one := follow.Cluster{Name: o.Name, ID: o.Source}
		if text, isSet := o.Setting(TagSetting); isSet {
			n, _ := strconv.ParseUint(text, 10, 32)
			one.Tag = uint32(n)
		}
		others = append(others, one)
	}
	return others
}

// anyTopic is a topic of a source; "": it has none that the client sees.
func anyTopic(c *source.Cluster) string {
	for i := range c.Topics {
		if t := &c.Topics[i]; t.Err == nil && !t.IsInternal {
			return t.Name
		}
	}
	return ""
}

// checkBrokers dials each broker at the address that it advertises.
func (c *check) checkBrokers(ctx context.Context) {
	errs := make([]error, len(c.cluster.Brokers))
	places := make(chan struct{}, probesAtOnce)
	var all sync.WaitGroup
	for i := range c.cluster.Brokers {
		places <- struct{}{}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, connectTime)
			defer cancel()
			errs[i] = c.client.Probe(ctx, c.cluster.Brokers[i].ID)
			<-places
		})
	}
	all.Wait()
	reached := 0
	for i, err := range errs {
		if err == nil {
			reached++
			continue
		}
		b := &c.cluster.Brokers[i]
		address := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		text, do := explainDial(err)
		if !source.IsLoginRefused(err) && !errors.Is(err, source.ErrOld) && !errors.Is(err, tunnel.ErrNoAgent) && !errors.Is(err, tunnel.ErrRefused) {
			do = fmt.Sprintf("If it is reached at another address from here, name that: --map %s=HOST:PORT.", address)
		}
		c.r.problem(address, fmt.Sprintf("Broker %d advertises this address. %s", b.ID, text), do)
	}
	if reached == len(errs) {
		c.r.step("all of its brokers are reached at the addresses that they advertise, or at those of --map")
	}
}

// checkTopics plans the topics, and finds out whether they may be read.
func (c *check) checkTopics(ctx context.Context) {
	img := c.s.cfg.Image()
	link := *c.link
	link.Source = c.cluster.ID
	p := planTopics(img, &link, c.set, c.cluster.Topics, nil)
	for i := range p.Steps {
		if s := &p.Steps[i]; s.IsNew {
			c.r.Topics = append(c.r.Topics, Planned{s.Source, s.Here, s.Partitions})
		}
	}
	for _, w := range p.Warnings {
		c.r.Warnings = append(c.r.Warnings, Finding{About: "topics", Text: w})
	}
	mirrored := mirroredBy(img, c.link.ID)
	for i := range c.cluster.Topics {
		if t := &c.cluster.Topics[i]; t.Err == nil && mirrored[t.Name] != nil {
			c.r.Topics = append(c.r.Topics, Planned{t.Name, mirrored[t.Name].Name, int32(len(t.Partitions))})
		}
	}
	if len(c.r.Topics) == 0 {
		c.r.Warnings = append(c.r.Warnings, Finding{"topics", "The source has no topic now that the link would mirror, or the login may not see it.", "Check the patterns, and that the login may DESCRIBE the topics."})
		return
	}
	c.checkRights(ctx)
}

// checkRights tries on some topics what a link does with all.
func (c *check) checkRights(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	some := c.r.Topics[:min(len(c.r.Topics), checkedTopics)]
	list := make([]string, len(some))
	for i := range some {
		list[i] = some[i].Source
	}
	denied := map[string][]string{}
	deny := func(right, topic string) { denied[right] = append(denied[right], topic) }
	found, err := c.client.DescribeConfigs(ctx, list)
	if err != nil {
		c.r.problem("rights", "The configs of topics cannot be asked for: "+sentence(err), "")
	}
	for i := range found {
		if f := &found[i]; source.IsDenied(f.Err) {
			deny("DESCRIBE_CONFIGS", f.Topic)
		} else if path := pathOf(c.cluster.ID, f.Values); f.Err == nil && slices.Contains(path, c.s.cfg.Image().ClusterID) {
			c.r.Warnings = append(c.r.Warnings, Finding{f.Topic, fmt.Sprintf("The topic comes from this cluster, over %s: it is not mirrored back.", strings.Join(path, ", ")), ""})
		}
	}
	for topic, err := range c.tryReading(ctx, list) {
		if source.IsDenied(err) {
			deny("READ", topic)
		} else {
			c.r.Warnings = append(c.r.Warnings, Finding{topic, "The topic cannot be read now: " + sentence(err), ""})
		}
	}
	for _, right := range []string{"DESCRIBE_CONFIGS", "READ"} {
		if topics := denied[right]; len(topics) > 0 {
			slices.Sort(topics)
			c.r.problem("rights", fmt.Sprintf("The login lacks the right %s for %s.", right, strings.Join(topics[:min(len(topics), 5)], ", ")),
				fmt.Sprintf("Grant it at the source: kafka-acls --add --allow-principal User:%s --operation %s --topic '*'.", c.set.user, right))
		}
	}
	if len(denied) == 0 && err == nil {
		c.r.step("%s may be read, with the configs", countOf(len(some), "topic"))
	}
}

// tryReading reads nothing of the first partition of each topic, and returns why not.
func (c *check) tryReading(ctx context.Context, topics []string) map[string]error {
	byLeader := map[int32][]source.Position{}
	for i := range c.cluster.Topics {
		t := &c.cluster.Topics[i]
		if !slices.Contains(topics, t.Name) || len(t.Partitions) == 0 || t.Partitions[0].Leader < 0 {
			continue
		}
		leader := t.Partitions[0].Leader
		byLeader[leader] = append(byLeader[leader], source.Position{Place: source.Place{Topic: t.Name, ID: t.ID}, Leader: -1, LastEpoch: -1, MaxBytes: 1})
	}
	failed := map[string]error{}
	for leader, list := range byLeader {
		f, err := c.client.Fetch(ctx, leader, list, source.Bounds{MaxBytes: 1})
		for i := range list {
			switch {
			case err != nil:
				failed[list[i].Topic] = err
			case f.Batches[i].Err != nil && !source.IsOutOfRange(f.Batches[i].Err):
				failed[list[i].Topic] = f.Batches[i].Err
			}
		}
	}
	return failed
}

// checkClock warns if the clocks of the two clusters differ.
func (c *check) checkClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	least, most, err := c.client.Ahead(ctx)
	switch {
	case err != nil:
		c.r.step("the source does not tell its time, or only to logins with the right DESCRIBE of the cluster: whether the clocks agree is not known")
	case least > mostSkew:
		c.warnOfClock(least, "ahead of")
	case -most > mostSkew:
		c.warnOfClock(-most, "behind")
	default:
		c.r.step("the clocks agree")
	}
}

func (c *check) warnOfClock(by time.Duration, how string) {
	c.r.Warnings = append(c.r.Warnings, Finding{
		"clock", fmt.Sprintf("The clock of the source is at least %v %s that of this node, so a start at a time is not exact, and positions of groups may count as older or newer than they are.", by.Round(time.Millisecond), how),
		"Have both clusters follow the time by NTP.",
	})
}
