package wire

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"testing"
)

// skipWithoutResets skips a test where the error of a connection that was reset is another one.
func skipWithoutResets(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a connection that was reset has another error there")
	}
}

// TestElsewhere proves how a client is sent to another server: before its first answer beyond API versions its connection
// is reset, since franz-go takes an orderly end there for wrong credentials and gives up; later the end is an orderly
// one, which loses no answer that is on its way.
func TestElsewhere(t *testing.T) {
	skipWithoutResets(t)
	away := fmt.Errorf("not now: %w", ErrElsewhere)
	for name, test := range map[string]struct {
		reason  error
		answers int
		want    error
	}{
		"at once":                  {away, 0, syscall.ECONNRESET},
		"after API versions":       {away, 1, syscall.ECONNRESET},
		"later":                    {away, 2, io.EOF},
		"for another reason":       {errors.New("it is malformed"), 0, io.EOF},
		"later for another reason": {errors.New("it is malformed"), 1, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			served := 0
			_, addr := start(t, Config{}, &funcs{serve: func(r *Request) error {
				if served++; served > test.answers {
					return test.reason
				}
				return echo(r)
			}})
			c := dial(t, addr)
			for i := range test.answers {
				c.send(frame(3, 1, int32(i), "x"))
				c.receive()
			}
			c.send(frame(3, 1, 9, "x"))
			if _, _, err := c.tryReceive(); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
