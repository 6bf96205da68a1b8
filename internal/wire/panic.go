package wire

import (
	"fmt"
	"runtime/debug"
)

// panicError is the end of a connection on whose behalf something panicked.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// closer is what can be ended with a reason.
type closer interface{ Close(reason error) }

// closeOnPanic makes a panic, of which v was recovered, the end of one connection: a bug
// costs its client, not the process.
func closeOnPanic(c closer, v any) {
	if v != nil {
		c.Close(&panicError{v, debug.Stack()})
	}
}

// catchPanic calls f and makes an error of its panic.
func catchPanic(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return f()
}
