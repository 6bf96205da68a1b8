package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cli/local"
	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/node"
)

const (
	// watchEvery is how often the demo asks which node leads what.
	watchEvery = 300 * time.Millisecond
	// restartAfter is how long a node stays away that has ended though nobody has pressed its key.
	restartAfter = 2 * time.Second
	// demoMetadataAge is how soon the demo's clients ask again who leads: it shows what the cluster does, and
	// not how long clients wait.
	demoMetadataAge = 100 * time.Millisecond
)

// demoNodes are the nodes of a demo of several nodes, each a process of its own.
type demoNodes struct {
	cluster *local.Cluster
	stats   *demoStats
	cancel  context.CancelFunc // ends what is under way with nodes
	acting  sync.WaitGroup     // starts and ends of nodes that are under way; added to with mu held, while not stopping

	mu         sync.Mutex
	controller int32     // guarded by mu: the node that leads the metadata; -1: not known
	leads      []int     // guarded by mu: by node, of the topic's partitions; nil: not known
	ended      int       // guarded by mu: the node that has ended last; 0: none has
	endedAt    time.Time // guarded by mu
	failure    string    // guarded by mu: why a node could not be started; "": none
	stopping   bool      // guarded by mu
}

// startDemoNodes starts the nodes of a demo.
func (a *app) startDemoNodes(ctx context.Context, f demoFlags, data string, stats *demoStats) (*demoNodes, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	d := &demoNodes{stats: stats, controller: -1}
	port := f.port
	if port == 0 {
		port = node.DefaultPort
	}
	ctx, d.cancel = context.WithCancel(ctx)
	d.cluster, err = local.Start(ctx, local.Config{
		Program: program, Dir: data, Nodes: f.nodes, Port: port, HTTP: "off",
		Args: []string{"--log-format", "text", "--set", "group.initial.rebalance.delay.ms=0"},
		Log:  func(int, string) {}, // it would disturb the picture; a failure to start is returned
		Ended: func(n *local.Node, _ error) {
			d.noteEnd(n)
			d.act(func() { d.restartLater(ctx, n) })
		},
	})
	if err != nil {
		d.cancel()
		return nil, err
	}
	a.awaitVoters(ctx, d.cluster)
	return d, nil
}

// act does something with a node, unless all are being stopped.
func (d *demoNodes) act(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopping {
		d.acting.Go(do)
	}
}

// stop stops all nodes.
func (d *demoNodes) stop() error {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	d.cancel()
	d.acting.Wait()
	return d.cluster.Stop()
}

// noteEnd notes that a node was killed. From now on the longest wait is measured anew.
func (d *demoNodes) noteEnd(n *local.Node) {
	d.mu.Lock()
	d.ended, d.endedAt, d.failure = n.Number, time.Now(), ""
	d.mu.Unlock()
	d.stats.longestWait.Store(0)
}

// restartLater starts a node that has ended by itself, or was killed from elsewhere.
func (d *demoNodes) restartLater(ctx context.Context, n *local.Node) {
	select {
	case <-time.After(restartAfter):
		d.startNode(ctx, n)
	case <-ctx.Done():
	}
}

func (d *demoNodes) startNode(ctx context.Context, n *local.Node) {
	if err := n.Start(ctx); err != nil && ctx.Err() == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.failure = oneLine(err)
	}
}

// obeyKey kills the node whose number is the key, as kill -9 does, or starts it if it was killed.
func (d *demoNodes) obeyKey(ctx context.Context, key byte) {
	number := int(key) - '0'
	if number < 1 || number > len(d.cluster.Nodes()) {
		return
	}
	n := d.cluster.Nodes()[number-1]
	if n.State() == local.Absent {
		d.act(func() { d.startNode(ctx, n) })
		return
	}
	d.noteEnd(n)
	d.act(func() {
		if err := n.Kill(); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.failure = oneLine(err)
		}
	})
}

// readKeys obeys the keys that a person presses, until the context ends. Since the terminal does not make
// signals of them meanwhile, Ctrl-C calls interrupt. restore gives the terminal back as it was.
func (d *demoNodes) readKeys(ctx context.Context, in io.Reader, interrupt func()) (restore func(), err error) {
	const ctrlC = 3
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(f.Fd()) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(f.Fd())
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	go func() { // ends with the process: nothing else can end the reading of a terminal
		var key [1]byte
		for ctx.Err() == nil {
			if _, err := f.Read(key[:]); err != nil {
				return
			}
			if key[0] == ctrlC {
				interrupt()
				return
			}
			d.obeyKey(ctx, key[0])
		}
	}()
	return func() { _ = term.Restore(f.Fd(), before) }, nil // a terminal that is gone needs none
}

// watchLeaders asks who leads what, until the context ends.
func (d *demoNodes) watchLeaders(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(d.cluster.Addresses()...), kgo.MetadataMinAge(demoMetadataAge))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if m, err := askMetadata(ctx, cl); err == nil {
			d.noteLeaders(&m)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func askMetadata(ctx context.Context, cl *kgo.Client) (kadm.Metadata, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return kadm.NewClient(cl).Metadata(ctx, demoTopic)
}

func (d *demoNodes) noteLeaders(m *kadm.Metadata) {
	leads := make([]int, len(d.cluster.Nodes())+1)
	for _, p := range m.Topics[demoTopic].Partitions {
		if p.Leader > 0 && int(p.Leader) < len(leads) {
			leads[p.Leader]++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leads, d.controller = leads, m.Controller
}

// table has a line for each node, with a heading.
func (d *demoNodes) table() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := columns{head: []string{"node", "address", "", ">leads", ""}}
	for _, n := range d.cluster.Nodes() {
		state, leads, rest := n.State().String(), "", ""
		switch {
		case n.State() == local.Absent:
			state = "killed"
		case d.leads != nil:
			leads = formatCount(d.leads[n.Number], "partition")
			if d.controller == int32(n.Number) {
				rest = "and the metadata"
			}
		}
		t.addRow(fmt.Sprint(n.Number), n.Address, state, leads, rest)
	}
	return t.String()
}

// states are the states of all nodes in a few words.
func (d *demoNodes) states() string {
	var list []string
	for _, n := range d.cluster.Nodes() {
		state := n.State().String()
		if n.State() == local.Absent {
			state = "killed"
		}
		list = append(list, fmt.Sprintf("%d %s", n.Number, state))
	}
	return "nodes: " + strings.Join(list, ", ")
}

// report says what became of the records since a node was killed; "": none was.
func (d *demoNodes) report() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended == 0 {
		return ""
	}
	gap := max(time.Duration(d.stats.longestWait.Load()), d.stats.currentWait())
	fate := "nothing is lost"
	if lost := d.stats.ledger.countLost(); lost > 0 {
		fate = formatCount(lost, "acknowledged record") + " lost"
	}
	text := fmt.Sprintf("Node %d was killed %s ago: %s, and no record waited longer than %s for its acknowledgement.", d.ended, time.Since(d.endedAt).Round(time.Second), fate, formatDuration(gap))
	if d.failure != "" {
		text += " " + escapeLine(d.failure) + "."
	}
	return text
}

// keysText says which keys there are.
func (d *demoNodes) keysText() string {
	var keys []string
	for _, n := range d.cluster.Nodes() {
		keys = append(keys, fmt.Sprint(n.Number))
	}
	return "Press " + phrase.Join(keys, "or") + " to kill that node, and again to start it. Ctrl-C ends it."
}

// errLostRecords is the failure of a demo in which acknowledged records were lost.
var errLostRecords = errors.New("acknowledged records were lost")
