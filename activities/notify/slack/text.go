package slack

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

var shout = regexp.MustCompile(`(?i)@(here|channel|everyone)`)

// plain makes foreign text safe as plain text: one line, at most limit characters, and nobody is called by it.
func plain(s string, limit int) string {
	return clip(quiet(s), limit, func(r rune) string { return string(r) })
}

// mrkdwn makes foreign text safe inside Slack's markup: as plain, and no link, mention or broadcast can be formed. The limit
// is on what comes out.
func mrkdwn(s string, limit int) string {
	return clip(quiet(s), limit, func(r rune) string {
		switch r {
		case '&':
			return "&amp;"
		case '<':
			return "&lt;"
		case '>':
			return "&gt;"
		case '`':
			return "'" // it would end a code span
		}
		return string(r)
	})
}

// quiet puts s on one line and parts the at sign from the words that call everybody.
func quiet(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError:
			return -1
		}
		return r
	}, s)
	return shout.ReplaceAllString(s, "@\u2060$1")
}

// clip encodes s rune by rune, and ends it with an ellipsis where it would be longer than limit characters; no code is cut apart.
func clip(s string, limit int, encode func(rune) string) string {
	var out strings.Builder
	length, keep := 0, 0 // keep: bytes that leave room for the ellipsis
	for _, r := range s {
		e := encode(r)
		length += utf8.RuneCountInString(e)
		if length > limit {
			return out.String()[:keep] + "…"
		}
		out.WriteString(e)
		if length < limit {
			keep = out.Len()
		}
	}
	return out.String()
}
