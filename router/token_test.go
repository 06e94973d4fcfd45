package router

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

func testRing(t testing.TB, keys ...Key) *Keyring {
	t.Helper()
	ring, err := NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

var (
	keyA = Key{ID: "a", Secret: []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")}
	keyB = Key{ID: "b", Secret: []byte("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")}
)

func TestOverrideToken(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ring := testRing(t, keyA)
	token := ring.OverrideToken(agent, "v42", now.Add(time.Hour))
	pin := string(ring.appendToken(nil, kindPin, claims{agent: agent, version: "v42", expiry: now.Add(time.Hour).Unix()}))
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	longer := base64.RawURLEncoding.EncodeToString(append(raw, 0))
	for name, tt := range map[string]struct {
		ring    *Keyring
		agent   string
		token   string
		at      time.Time
		wantErr error
	}{
		"good":                  {ring, agent, token, now, nil},
		"good, rotated":         {testRing(t, keyB, keyA), agent, token, now, nil},
		"last second":           {ring, agent, token, now.Add(time.Hour - 1), nil},
		"expired":               {ring, agent, token, now.Add(time.Hour), ErrExpiredToken},
		"another agent":         {ring, "billing-agent", token, now, ErrBadToken},
		"key withdrawn":         {testRing(t, keyB), agent, token, now, ErrBadToken},
		"same id, other secret": {testRing(t, Key{ID: "a", Secret: keyB.Secret}), agent, token, now, ErrBadToken},
		"a pin":                 {ring, agent, pin, now, ErrBadToken},
		"empty":                 {ring, agent, "", now, ErrBadToken},
		"longer":                {ring, agent, longer, now, ErrBadToken},
		"with padding":          {ring, agent, token + "=", now, ErrBadToken},
		"shorter":               {ring, agent, token[:len(token)-1], now, ErrBadToken},
		"very long":             {ring, agent, strings.Repeat(token, 10), now, ErrBadToken},
		"spaces":                {ring, agent, " " + token, now, ErrBadToken},
		"new line inside":       {ring, agent, token[:8] + "\n" + token[8:], now, ErrBadToken},
	} {
		version, err := tt.ring.CheckOverride(tt.agent, tt.token, tt.at)
		if !errors.Is(err, tt.wantErr) || (err == nil) != (version == "v42") {
			t.Errorf("%s: version %q, error %v; want error %v", name, version, err, tt.wantErr)
		}
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ring := testRing(t, keyA, keyB)
	token := ring.OverrideToken(agent, "v42", now.Add(time.Hour))
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if v, err := ring.CheckOverride(agent, base64.RawURLEncoding.EncodeToString(raw), now); !errors.Is(err, ErrBadToken) {
				t.Errorf("byte %d bit %d flipped: version %q, error %v", i, bit, v, err)
			}
			raw[i] ^= 1 << bit
		}
	}
}

func TestTokenHasOneText(t *testing.T) {
	t.Parallel()
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ring := testRing(t, keyA)
	for _, version := range []string{"v4", "v42", "v421"} { // the last digit has 0, 2 or 4 bits that mean nothing
		token := ring.OverrideToken(agent, version, now.Add(time.Hour))
		for _, digit := range digits {
			other := token[:len(token)-1] + string(digit)
			if v, err := ring.CheckOverride(agent, other, now); (err == nil) != (other == token) {
				t.Errorf("version %s with last digit %c for %s: %q, %v", version, digit, token[len(token)-1:], v, err)
			}
		}
	}
}

func TestLongestToken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ring := testRing(t, Key{ID: strings.Repeat("k", maxKeyID), Secret: keyA.Secret})
	name, version := strings.Repeat("a", maxName), strings.Repeat("v", maxName)
	token := ring.OverrideToken(name, version, now.Add(time.Hour))
	if len(token) > maxTokenLen {
		t.Errorf("token has %d bytes, want at most %d", len(token), maxTokenLen)
	}
	if got, err := ring.CheckOverride(name, token, now); got != version || err != nil {
		t.Errorf("version %q, error %v", got, err)
	}
}

func TestNewKeyringRefuses(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]Key{
		"none": nil, "no id": {{Secret: keyA.Secret}}, "long id": {{ID: strings.Repeat("k", maxKeyID+1), Secret: keyA.Secret}},
		"short secret": {{ID: "a", Secret: []byte("short")}}, "twice": {keyA, keyA},
	} {
		if _, err := NewKeyring(keys...); err == nil || strings.Contains(err.Error(), "short\"") {
			t.Errorf("%s: error %v, want one without the secret", name, err)
		}
	}
}
