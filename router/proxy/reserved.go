package proxy

import "net/http"

// reserved are the headers of requests that only the proxy may set, in any spelling that an agent may take for them: CGI, and
// what is built after it, reads case and punctuation of a header's name alike, so that X_Canary and X.Canary are X-Canary.
type reserved struct {
	folded  map[string]bool
	lengths uint64 // of the names, as a set of bits
}

func newReserved(names ...string) reserved {
	r := reserved{folded: map[string]bool{}}
	for _, name := range names {
		r.folded[fold(name)] = true
		r.lengths |= 1 << min(len(name), 63)
	}
	return r
}

// drop takes other spellings of the headers out of h. Those by their own names, which cost less to find, are the caller's.
func (r reserved) drop(h http.Header) {
	for name := range h {
		if r.lengths&(1<<min(len(name), 63)) != 0 && !plain(name) && r.folded[fold(name)] {
			delete(h, name)
		}
	}
}

// plain reports whether name has no punctuation but dashes.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && !alphanumeric(c) {
			return false
		}
	}
	return true
}

// fold is name with case and punctuation taken away.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case !alphanumeric(c):
			b[i] = '-'
		case c >= 'A' && c <= 'Z':
			b[i] = c | 0x20
		}
	}
	return string(b)
}

func alphanumeric(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }
