package cli

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/tunnel"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/peer"
)

// linkAgentFlags are the flags of the agent.
type linkAgentFlags struct {
	source linkSource

	to, allow, nodeMap                  []string
	tokenFile, keyFile, authority, name string
}

func (v *linkVerbs) newAgent() *cobra.Command {
	var f linkAgentFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Carry the connections of a link, beside a source that cannot be dialled", Args: cobra.NoArgs, ValidArgsFunction: completeNothing,
		Long: `Run an agent of a link beside a source that the nodes which mirror it cannot dial, since it is behind a NAT or a firewall. The agent dials these nodes, all of them, on
the port that clients use, and carries their connections to the source's brokers, until it is stopped. It needs no other right and opens no port. It comes back by itself
when a connection ends; two agents with a token each take over from each other.

The token is made at the cluster that mirrors: "leat link agent-token NAME". With its first use the agent makes a key, in the file beside the token's (--key-file), and from
then on the token is of use with that key alone: keep both.

Only the source's brokers are dialled: those of --from, those that the source itself names (it is asked for its metadata, with the login of the --source flags), and those of
--allow. What goes to them is the link's own: it logs in, and encrypts if it has to, through the agent. The certificates of the nodes are checked against --authority if it is given; without it, the token
proves both ends, and that nobody stands between them.`,
		Example: `  leat link agent --to mirror-1.south:9092 --token-file token --from kafka-1:9092
  leat link agent --to m1:9092 --to m2:9092 --token-file token --from k1:9093 --source-config c.conf
  leat link agent --to m1:9092 --token-file token --allow k1:9092 --allow k2:9092`,
		RunE: func(cmd *cobra.Command, _ []string) error { return v.runAgent(cmd, &f) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.to, "to", nil, "a node of the cluster that mirrors, as host:port; may be repeated, and the others are found")
	fs.StringVar(&f.tokenFile, "token-file", "", "file with the token")
	fs.StringVar(&f.keyFile, "key-file", "", "file with the key of this agent, which is made if it is not there (default: the token's file with .key behind it)")
	fs.StringVar(&f.authority, "authority", "", "PEM file of the certificate authority of the cluster that mirrors")
	fs.StringVar(&f.name, "name", "", "the name of this agent, for people (default: that of the machine)")
	fs.StringArrayVar(&f.allow, "allow", nil, "an address, as host:port, that is dialled besides the source's brokers; may be repeated")
	fs.StringArrayVar(&f.nodeMap, "node-map", nil, "where a node is reached in place of the address that it tells, as `TOLD=REACHABLE`, host:port each; may be repeated")
	f.source.addLoginFlags(v.app, cmd)
	for _, name := range []string{"to", "name", "allow", "node-map"} {
		v.completeFlag(cmd, name, completeNothing)
	}
	return cmd
}

// runAgent runs an agent until the program is stopped.
func (v *linkVerbs) runAgent(cmd *cobra.Command, f *linkAgentFlags) error {
	cfg, err := f.read()
	if err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(v.err, nil))
	if cfg.Reach, err = f.reach(cmd, cfg.Logger); err != nil {
		return err
	}
	if cfg.Key, err = keepAgentKey(f.keyFile); err != nil {
		return err
	}
	return tunnel.Run(cmd.Context(), cfg)
}

// read reads what the flags say, and the files that they name.
func (f *linkAgentFlags) read() (*tunnel.AgentConfig, error) {
	switch {
	case len(f.to) == 0:
		return nil, usagef("--to must be given: a node of the cluster that mirrors, as host:port")
	case f.tokenFile == "":
		return nil, usagef("--token-file must be given: \"leat link agent-token NAME\" makes a token, at the cluster that mirrors")
	case len(f.source.from) == 0 && f.source.clientConfig == "" && len(f.allow) == 0:
		return nil, usagef("--from must be given: the addresses of brokers of the source, as host:port; or else all of them with --allow")
	}
	text, err := readFile(f.tokenFile)
	if err != nil {
		return nil, err
	}
	cfg := &tunnel.AgentConfig{Versions: node.AgentVersions(), Name: f.name}
	if cfg.Token, err = credential.ParseToken(string(text)); err != nil {
		return nil, usagef("--token-file %s: %v", f.tokenFile, err)
	}
	if !cfg.Token.IsForAgent() {
		return nil, usagef("--token-file %s: it is a token with which nodes join; one for an agent is made by \"leat link agent-token NAME\"", f.tokenFile)
	}
	if f.keyFile == "" {
		f.keyFile = f.tokenFile + ".key"
	}
	if cfg.Name == "" {
		if cfg.Name, err = os.Hostname(); err != nil {
			cfg.Name = "agent"
		}
	}
	var roots *x509.CertPool
	if f.authority != "" {
		trusted, _, err := trust(f.authority, "--authority")
		if err != nil {
			return nil, err
		}
		roots = trusted.RootCAs
	}
	if cfg.Nodes, err = nodeAddresses(f.to, cfg.Token.NeedsTLS() || roots != nil); err != nil {
		return nil, err
	}
	cfg.Dial, err = mapNodes(f.nodeMap, node.DialForAgent(roots))
	return cfg, err
}

// nodeAddresses are the addresses of nodes with their protocols. Without one that is sure, TLS is tried behind none: never the other way round, which somebody on the way could bring about.
func nodeAddresses(list []string, tls bool) (all []string, err error) {
	for _, at := range list {
		if _, _, err := net.SplitHostPort(at); err != nil { // the port may be left out
			at = net.JoinHostPort(at, strconv.Itoa(node.DefaultPort))
		}
		if err := checkHostPort(at); err != nil {
			return nil, usagef("--to: %v", err)
		}
		if !tls {
			all = append(all, config.Plaintext.String()+"://"+at)
		}
		all = append(all, config.SSL.String()+"://"+at)
	}
	return all, nil
}

// mapNodes dials nodes at other addresses than they tell.
func mapNodes(pairs []string, dial peer.DialFunc) (peer.DialFunc, error) {
	reach := map[string]string{}
	for _, pair := range pairs {
		told, reachable, ok := strings.Cut(pair, "=")
		if !ok || checkHostPort(told) != nil || checkHostPort(reachable) != nil {
			return nil, usagef("--node-map %s: write it as TOLD=REACHABLE, such as node-1:9092=10.8.0.5:9092", pair)
		}
		reach[told] = reachable
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		hostPort, protocol, isKnown := peer.SplitAddress(address)
		if to, ok := reach[hostPort]; ok && isKnown {
			address = protocol.String() + "://" + to
		}
		return dial(ctx, network, address)
	}, nil
}

// reach says which brokers are dialled.
func (f *linkAgentFlags) reach(cmd *cobra.Command, log *slog.Logger) (*tunnel.Reach, error) {
	for _, at := range f.allow {
		if err := checkHostPort(at); err != nil {
			return nil, usagef("--allow: %v", err)
		}
	}
	w, err := f.source.readLoginWish(cmd)
	if err != nil {
		return nil, err
	}
	allowed := slices.Clone(f.allow)
	if w.set[serversKey] == "" {
		return tunnel.NewReach(allowed, nil, log), nil
	}
	for at := range strings.SplitSeq(w.set[serversKey], ",") {
		allowed = append(allowed, strings.TrimSpace(at))
	}
	w.set[topicsKey] = "*"
	secrets, err := mirror.EncodeSecrets(w.secrets)
	if err != nil {
		return nil, err
	}
	set, err := mirror.ParseSettings(w.settings(), secrets)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return tunnel.NewReach(allowed, func(ctx context.Context) ([]string, error) { return mirror.ListBrokers(ctx, set, "leat-link-agent") }, log), nil
}

// keepAgentKey reads the key of an agent, or makes it. It is durable before the cluster knows it: a token is of use with that key alone.
func keepAgentKey(file string) (credential.NodeKey, error) {
	text, err := readFile(file)
	if err == nil {
		key, err := credential.ParseNodeKey(text)
		if err != nil {
			return key, usagef("--key-file %s: %v", file, err)
		}
		return key, nil
	}
	if !errors.Is(err, errNotFound) {
		return credential.NodeKey{}, err
	}
	key, err := credential.NewNodeKey(rand.Reader)
	if err != nil {
		return key, err
	}
	return key, writeAgentKey(file, key.Encode())
}

// writeAgentKey writes the file of a key, which only its owner may read, and has it on the disk when it returns.
func writeAgentKey(file string, text []byte) error {
	const onlyOwner = 0o600
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, onlyOwner)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// writeAgents writes which agents are connected, of a link that is reached by them, and which tokens there are.
func (d *describedLink) writeAgents(b *strings.Builder) {
	if d.Settings[viaKey] == "" {
		return
	}
	tokens := columns{head: []string{"TOKEN", "STATE", "CONNECTED TO"}}
	nodes := map[string][]string{}
	for i := range d.Agents {
		nodes[d.Agents[i].Token] = append(nodes[d.Agents[i].Token], strconv.Itoa(int(d.Agents[i].Node)))
	}
	for _, t := range d.AgentTokens {
		state, to := "used by an agent", "no node"
		switch {
		case !t.Used && time.Now().After(t.Expires):
			state = "has ended unused"
		case !t.Used:
			state = "not used, until " + t.Expires.Format("2006-01-02 15:04:05 MST")
		}
		if list := nodes[t.ID]; len(list) > 0 {
			to = "node " + strings.Join(list, ", ")
		}
		tokens.addRow(t.ID, state, to)
	}
	if len(d.AgentTokens) == 0 {
		b.WriteString("\nno agent can connect: \"leat link agent-token " + quoteWord(d.Name) + "\" makes a token for one\n")
		return
	}
	b.WriteString("\n" + tokens.String())
	if len(d.Agents) == 0 {
		b.WriteString("\nno agent is connected: see to it that \"leat link agent\" runs beside the source, and look at what it logs\n")
		return
	}
	t := columns{head: []string{"AGENT", ">NODE", "FROM", "SINCE", ">CONNECTIONS", "LAST PROBLEM"}}
	for i := range d.Agents {
		a := &d.Agents[i]
		problem := a.Problem
		if problem == "" {
			problem = "-"
		}
		t.addRow(a.Name, strconv.Itoa(int(a.Node)), a.Remote, a.Since.Format("2006-01-02 15:04:05 MST"), strconv.Itoa(a.Streams), problem)
	}
	b.WriteString("\n" + t.String())
}

// readLoginWish reads the flags that say how the source is asked.
func (s *linkSource) readLoginWish(cmd *cobra.Command) (*linkWish, error) {
	w := &linkWish{set: map[string]string{}}
	if slices.ContainsFunc(sourceLoginFlags(), func(name string) bool { return cmd.Flag(name).Changed }) {
		if err := s.readLogin(w); err != nil {
			return nil, err
		}
	}
	if len(s.from) > 0 {
		maps.Copy(w.set, map[string]string{serversKey: strings.Join(s.from, ",")})
	}
	for at := range strings.SplitSeq(w.set[serversKey], ",") {
		if w.set[serversKey] == "" {
			break
		}
		if err := checkHostPort(strings.TrimSpace(at)); err != nil {
			return nil, usagef("--from: %v", err)
		}
	}
	return w, nil
}
