package node

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// changeAuthority changes the certificate authority of the cluster of a node.
func changeAuthority(t *testing.T, n *Node, change func(now *meta.Authority) (meta.Authority, error)) {
	t.Helper()
	eventually(t, "the certificate authority is changed", func() bool {
		now := n.image.Load().Authority()
		next, err := change(now)
		if err != nil {
			t.Fatal(err)
		}
		refused, err := controller.SetAuthority(deadline(t), n.controller, now, &next)
		return err == nil && refused == nil
	})
}

// TestAuthorityIsReplacedWithoutANode proves that a node which was stopped while the certificate authority was replaced, and the old one is trusted no more, comes
// back by its key alone, and gets a certificate of the new one: neither end trusts the other's certificate when they meet.
func TestAuthorityIsReplacedWithoutANode(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is restarted")
	}
	m := newSecuredMachines(t, 3, "SASL_SSL")
	m.start(0, Config{Secure: true, Listen: m.ports[:1]})
	for i := 1; i < 3; i++ {
		m.start(i, Config{Join: m.ports[:1], Token: m.makeToken(0), Listen: m.ports[i : i+1]})
	}
	m.awaitVoters(3)
	m.awaitBound()
	leads := func() int {
		return slices.IndexFunc(m.nodes, func(n *Node) bool {
			if n == nil {
				return false
			}
			_, ok := n.quorum.Leading()
			return ok
		})
	}
	m.stop(2)
	eventually(t, "a node leads the metadata", func() bool { return leads() >= 0 })
	n := m.nodes[leads()]
	ring, err := n.secured.readRing(n.fs)
	if err != nil {
		t.Fatal(err)
	}
	changeAuthority(t, n, func(now *meta.Authority) (meta.Authority, error) {
		return authority.Rotate(ring, n.id.clusterID, now, time.Now())
	})
	number := n.image.Load().Authority().Number
	before := [2]string{m.serial(0), m.serial(1)}
	eventually(t, "the nodes show new certificates", func() bool { return m.serial(0) != before[0] && m.serial(1) != before[1] })
	before = [2]string{m.serial(0), m.serial(1)}
	changeAuthority(t, n, func(now *meta.Authority) (meta.Authority, error) { return authority.Finish(now), nil })
	eventually(t, "the nodes show new certificates", func() bool { return m.serial(0) != before[0] && m.serial(1) != before[1] })

	m.start(2, Config{Listen: m.ports[2:]})
	m.awaitBound()
	eventually(t, "the node has heard of the new authority", func() bool {
		a := m.nodes[2].image.Load().Authority()
		return a.Number == number && !authority.IsRotating(a)
	})
	eventually(t, "the node has a certificate of it", func() bool {
		c := m.nodes[2].encryption.find(m.nodes[2].addresses.names[0]).certificate()
		names := authority.Names{}
		return authority.FindRenewal(c, m.nodes[2].image.Load().Authority(), &names, time.Now()) == ""
	})
}

// TestSealingKeyIsOutsideOfTheDirectory proves that no way of writing the names has the sealing key be in the data directory, whose copy must not have it.
func TestSealingKeyIsOutsideOfTheDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"data", "./data", here + "/data"} {
		for _, key := range []string{"data/key", "./data/a/../key", here + "/data/key", here + "/data"} {
			cfg := securedConfig(data)
			cfg.SealingKey = key
			if _, err := keyFileOf(&cfg); err == nil || !strings.Contains(err.Error(), "is in the data directory") {
				t.Errorf("--data %s --sealing-key %s: %v", data, key, err)
			}
		}
		for _, key := range []string{"", "data.key", "../key", "data/../key", here + "/database"} {
			cfg := securedConfig(data)
			cfg.SealingKey = key
			if file, err := keyFileOf(&cfg); err != nil || !filepath.IsAbs(file) {
				t.Errorf("--data %s --sealing-key %s: %s, %v", data, key, file, err)
			}
		}
	}
}

// TestLastAdministratorStays proves that the first user of a secured cluster is not deleted while no other super user could log in, by which no node would start
// again, and is one of the users as any other when there is another one.
func TestLastAdministratorStays(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	cfg := securedConfig(data)
	cfg.Settings["super.users"] = "User:admin;User:olga"
	n := startSecured(t, cfg)
	login, err := ReadFirstLogin(n.Info().Secured.FirstLogin)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(loggedIn(t, n, login))
	remove := func(by *kadm.Client, user string, m kadm.ScramMechanism) error {
		t.Helper()
		res, err := by.AlterUserSCRAMs(deadline(t), []kadm.DeleteSCRAM{{User: user, Mechanism: m}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res[user].Err
	}
	if err := remove(admin, "admin", kadm.ScramSha256); err != nil {
		t.Fatal(err)
	}
	if err := remove(admin, "admin", kadm.ScramSha512); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("the last one: %v", err)
	}
	olga := BootstrapUser{"olga", "a password of hers"}
	res, err := admin.AlterUserSCRAMs(deadline(t), nil, []kadm.UpsertSCRAM{{User: olga.Name, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: olga.Password}})
	if err != nil || res.Error() != nil {
		t.Fatal(res, err)
	}
	if err := remove(kadm.NewClient(loggedIn(t, n, olga)), "admin", kadm.ScramSha512); err != nil {
		t.Errorf("one of two: %v", err)
	}
	stop(t, n)
	again := startSecured(t, cfg)
	if err := loggedIn(t, again, olga).Ping(deadline(t)); err != nil {
		t.Error(err)
	}
}
