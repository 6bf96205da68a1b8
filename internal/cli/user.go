package cli

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
)

func (a *app) newUser() *cobra.Command {
	return a.addOutputFlag(a.addClientFlags(newParent("user", "Create, list and delete users, and change their passwords",
		a.newUserCreate(), a.newUserRotate(), a.newUserDelete(), a.newUserList())))
}

// scramMechanisms are the mechanisms for which a user gets a credential.
func scramMechanisms() []kadm.ScramMechanism {
	return []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512}
}

// changedUser is the output of the verbs that create a user or change a password.
type changedUser struct {
	User     string `json:"user"`
	Password string `json:"password,omitempty"` // if it was made here
}

// passwordSource says where the password of a user is from: a file, or it is made.
type passwordSource struct{ file string }

func (p *passwordSource) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "password-file", "", `the file whose first line is the password that NAME gets, or "-" for the input; without it a password is made, and shown once`)
}

// readPassword returns the password, and whether it was made here.
func (a *app) readPassword(p passwordSource) (password string, isMade bool, err error) {
	var text []byte
	switch p.file {
	case "":
		var b [20]byte
		_, _ = rand.Read(b[:]) // it never fails
		return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])), true, nil
	case "-":
		text, err = readFirst(a.in, maxPassword)
	default:
		text, err = readFile(p.file)
	}
	if err != nil {
		return "", false, err
	}
	password, _, _ = strings.Cut(string(text), "\n")
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		return "", false, errors.New("the password is empty")
	}
	return password, false, nil
}

// maxPassword is how many bytes of a file or of the input are read for a password.
const maxPassword = 64 << 10

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, notFoundf("file %s does not exist", name)
		}
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readFirst(f, maxPassword)
}

// setPassword gives a user a credential for each mechanism. Kafka changes one of a user's at a time.
func (a *app) setPassword(ctx context.Context, adm *kadm.Client, user, password string) error {
	for _, m := range a.putOwnLast(scramMechanisms()) {
		res, err := adm.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: m, Iterations: auth.DefaultIterations, Password: password}})
		if err != nil {
			return answerError("user "+user, err, "")
		}
		if r := res[user]; r.Err != nil {
			return answerError("user "+user, r.Err, r.ErrMessage)
		}
	}
	return nil
}

// putOwnLast puts the mechanism last by whose credential this client has logged in: when that changes, the login ends.
func (a *app) putOwnLast(mechanisms []kadm.ScramMechanism) []kadm.ScramMechanism {
	own := kadm.ScramSha512
	if a.identity.loggedInBy == config.MechanismScramSHA256 {
		own = kadm.ScramSha256
	}
	return slices.SortedStableFunc(slices.Values(mechanisms), func(x, y kadm.ScramMechanism) int {
		switch {
		case x == own && y != own:
			return 1
		case y == own && x != own:
			return -1
		}
		return 0
	})
}

// mechanismsOf returns the mechanisms for which a user has a credential; none: there is no such user.
func mechanismsOf(ctx context.Context, adm *kadm.Client, user string) ([]kadm.ScramMechanism, error) {
	res, err := adm.DescribeUserSCRAMs(ctx, user)
	if err != nil {
		return nil, answerError("user "+user, err, "")
	}
	r := res[user]
	if errors.Is(r.Err, kerr.ResourceNotFound) {
		return nil, nil
	}
	if r.Err != nil {
		return nil, answerError("user "+user, r.Err, r.ErrMessage)
	}
	var all []kadm.ScramMechanism
	for _, c := range r.CredInfos {
		all = append(all, c.Mechanism)
	}
	slices.Sort(all)
	return all, nil
}

// showPassword tells that a user has a password, and which one, if it was made here.
func (a *app) showPassword(u changedUser, done string) error {
	return a.show(u, func() string {
		s := done + " user " + escapeLine(u.User) + "\n"
		if u.Password != "" {
			s += fmt.Sprintf("its password, which is not shown again: %s\n", u.Password)
		}
		return s
	})
}

func noSuchUserError(user string) error {
	return notFoundf("user %s does not exist: \"leat user list\" lists all users", user)
}

// readFirst reads at most so many bytes.
func readFirst(r io.Reader, most int64) ([]byte, error) { return io.ReadAll(io.LimitReader(r, most)) }
