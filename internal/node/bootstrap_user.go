package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/leatstream/leat/internal/auth"
)

// BootstrapUser is the first user of a cluster, who is a super user on the nodes that are started with it. No error of its methods has
// a part of the password.
type BootstrapUser struct{ Name, Password string } //nolint:recvcheck // what prints it must hold for values, too

// IsSet tells whether there is one.
func (u BootstrapUser) IsSet() bool { return u.Name != "" }

// LogValue is the name alone: the password gets into no log by accident.
func (u BootstrapUser) LogValue() slog.Value { return slog.StringValue(u.Name) }

// Format prints the name alone, whatever the verb.
func (u BootstrapUser) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, u.Name) }

// set sets NAME:PASSWORD, or NAME with a password from elsewhere.
func (u *BootstrapUser) set(value string) error {
	name, password, hasPassword := strings.Cut(value, ":")
	if u.Name = strings.TrimSpace(name); u.Name == "" || hasPassword && password == "" || len(name) > auth.LongestName {
		return errors.New("bootstrap-user: write NAME:PASSWORD, or NAME with --bootstrap-password-file")
	}
	if hasPassword {
		u.Password = password
	}
	return nil
}

// readPassword reads the password: the first line of a file.
func (u *BootstrapUser) readPassword(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read bootstrap-password-file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if u.Password = strings.TrimSuffix(line, "\r"); u.Password == "" {
		return fmt.Errorf("bootstrap-password-file: the first line of %s has no password", path)
	}
	return nil
}

// check refuses a user without a password, and a password without a user.
func (u *BootstrapUser) check() error {
	switch {
	case u.Name == "" && u.Password != "":
		return errors.New("bootstrap-password-file needs bootstrap-user: name the user whose password it has")
	case u.Name != "" && u.Password == "":
		return errors.New("bootstrap-user has no password: write NAME:PASSWORD, or give one with --bootstrap-password-file")
	}
	return nil
}
