// Package admin is an operator's client of Kafka's protocol, for any Kafka. It answers questions that take
// several requests or a request without a ready-made function: groups of every kind with their lag, open
// transactions, the quorum, log levels, places in topics. It creates topics and changes configs, and passes on the broker's
// notes about configs that have no effect.
//
// Its functions may be called concurrently.
package admin

// RefusedError says what a broker refused, and of which thing.
type RefusedError struct {
	Of      string // such as "group billing"
	Err     error  // the error of Kafka that the code stands for
	Message string // the broker's own words; may be empty
}

func (r *RefusedError) Error() string {
	if r.Message != "" {
		return r.Of + ": " + r.Message
	}
	return r.Of + ": " + r.Err.Error()
}

func (r *RefusedError) Unwrap() error { return r.Err }
