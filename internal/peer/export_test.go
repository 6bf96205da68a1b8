package peer

// IsReading tells whether the answer to the oldest call is being read.
func (c *Conn) IsReading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) > 0 && c.calls[0].state == callReading
}

// IsFull tells whether no more calls may be outstanding.
func (c *Conn) IsFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls) == maxOutstanding
}
