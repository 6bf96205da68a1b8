package auth

// ClaimedUser is who the client of a login says to be, as far as its messages have told; "": they have not. It is not proven.
func ClaimedUser(x Exchange) string {
	switch x := x.(type) {
	case *plainExchange:
		return x.user
	case *scramExchange:
		return x.user
	}
	return ""
}
