// Package admin asks brokers for what an operator wants to know and no one request tells: groups of
// every kind with their lag, the quorum, log levels, and places in topics. It is a client of Kafka's
// protocol and works against any Kafka.
//
// Its functions may be called concurrently.
package admin

// RefusedError says what a broker refused, and of which thing.
type RefusedError struct {
	Of      string // such as "group billing"
	Err     error  // by its code
	Message string // the broker's own words; may be empty
}

func (r *RefusedError) Error() string {
	if r.Message != "" {
		return r.Of + ": " + r.Message
	}
	return r.Of + ": " + r.Err.Error()
}

func (r *RefusedError) Unwrap() error { return r.Err }
