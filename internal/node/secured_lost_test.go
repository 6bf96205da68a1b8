package node

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/cluster"
)

// lockedLog is a log that a test reads while a node writes it.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// secureds are two nodes that are secured: one since its first start, and one that was plain.
var secureds = map[string]struct {
	listener string
	isPlain  bool
}{"at its first start": {"sasl_ssl", false}, "while it ran": {"plaintext", true}}

// startToBeSecured starts a node, and secures it if it is plain.
func startToBeSecured(t *testing.T, cfg Config, isPlain bool) *Node {
	t.Helper()
	cfg.Secure = !isPlain
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if isPlain {
		for _, q := range []cluster.SecureRequest{{Verb: cluster.SecureBegin}, {Verb: cluster.SecureFinish, Force: true}} {
			if _, refused := secure(t, n, q); refused != nil {
				t.Fatal(refused)
			}
		}
	}
	return n
}

// TestLostPassword proves the way that docs/security.md has for who has lost the password of the administrator, on a node that was secured at its first start
// and on one that was plain; and that the file of the first login, which has the old password, is deleted at the next start.
func TestLostPassword(t *testing.T) {
	for how, c := range secureds {
		t.Run(how, func(t *testing.T) {
			var log lockedLog
			cfg := securedConfig(filepath.Join(t.TempDir(), "data"))
			cfg.HTTP, cfg.Logger = "off", slog.New(slog.NewTextHandler(&log, nil))
			n := startToBeSecured(t, cfg, c.isPlain)
			first := filepath.Join(cfg.Data, firstLoginFile)
			stop(t, n)
			n = startSecuredAgain(t, cfg)
			if _, err := os.Stat(first); err != nil {
				t.Errorf("the file of the first login is gone before the password was changed: %v", err)
			}
			stop(t, n)

			lost := cfg
			lost.Settings = maps.Clone(cfg.Settings)
			lost.Settings["listener.name."+c.listener+".sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-512"
			lost.Settings["listener.name."+c.listener+".plain.sasl.jaas.config"] = `org.apache.kafka.common.security.plain.PlainLoginModule required user_admin="chosen now";`
			n = startSecuredAgain(t, lost)
			client := func(by sasl.Mechanism) *kadm.Client {
				cl, err := kgo.NewClient(kgo.SeedBrokers(n.Info().Addresses...), kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), kgo.SASL(by))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(cl.Close)
				return kadm.NewClient(cl)
			}
			var sets []kadm.UpsertSCRAM
			for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
				sets = append(sets, kadm.UpsertSCRAM{User: "admin", Mechanism: m, Iterations: 4096, Password: "a new one"})
			}
			for _, set := range sets {
				altered, err := client(plain.Auth{User: "admin", Pass: "chosen now"}.AsMechanism()).AlterUserSCRAMs(deadline(t), nil, []kadm.UpsertSCRAM{set})
				if err == nil {
					err = altered.Error()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			stop(t, n)

			cfg.BootstrapUser = BootstrapUser{"admin", "yet another one"}
			if c.isPlain {
				cfg.BootstrapUser = BootstrapUser{}
			}
			n = startSecuredAgain(t, cfg)
			defer func() { stop(t, n) }()
			if _, err := client(scram.Auth{User: "admin", Pass: "a new one"}.AsSha512Mechanism()).ListTopics(deadline(t)); err != nil {
				t.Errorf("with the new password: %v", err)
			}
			if _, err := os.Stat(first); !errors.Is(err, os.ErrNotExist) || !strings.Contains(log.String(), "the file of the first login was deleted") || n.Info().Secured.FirstLogin != "" {
				t.Errorf("the file of the first login: %v, %+v", err, n.Info().Secured)
			}
			if warned := strings.Contains(log.String(), "--bootstrap-user makes no user"); warned == c.isPlain {
				t.Errorf("a warning of --bootstrap-user: %t", warned)
			}
		})
	}
}

// startSecuredAgain starts a node that is secured already.
func startSecuredAgain(t *testing.T, cfg Config) *Node {
	t.Helper()
	cfg.Secure = false
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSecuredNodeLosesFiles proves that a secured node does not start without node.secured, in whichever way it was secured, and that the log warns of a sealing
// key that others may read.
func TestSecuredNodeLosesFiles(t *testing.T) {
	for how, c := range secureds {
		t.Run(how, func(t *testing.T) {
			var log lockedLog
			cfg := securedConfig(filepath.Join(t.TempDir(), "data"))
			cfg.HTTP, cfg.Logger = "off", slog.New(slog.NewTextHandler(&log, nil))
			stop(t, startToBeSecured(t, cfg, c.isPlain))
			if strings.Contains(log.String(), "may read the sealing key") {
				t.Error("the log warns of a key that nobody else may read")
			}
			if err := os.Chmod(cfg.Data+".key", 0o640); err != nil {
				t.Fatal(err)
			}
			stop(t, startSecuredAgain(t, cfg))
			if !strings.Contains(log.String(), "may read the sealing key") || !strings.Contains(log.String(), "mode=0640") {
				t.Error("the log does not warn of a key that others may read")
			}
			if err := os.Remove(filepath.Join(cfg.Data, securedFile)); err != nil {
				t.Fatal(err)
			}
			cfg.Secure = false
			if n, err := Start(t.Context(), cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), securedFile+" is missing") {
				t.Errorf("without %s: %v", securedFile, err)
				if err == nil {
					stop(t, n)
				}
			}
		})
	}
}
