package router

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"
)

// The kinds of token. A token of one kind is never valid as another: they are signed with different keys.
const (
	kindPin      = 'p'
	kindOverride = 'o'
)

// onStable is the rollout of a pin to what was the stable version when it was made.
const onStable = 0

const (
	maxKeyID    = 32
	minSecret   = 16
	macSize     = 16 // HMAC-SHA256 cut to 128 bits (RFC 2104, section 5)
	maxRaw      = 1 + 1 + maxKeyID + 2*(1+maxName) + 3*8 + macSize
	maxName     = 63
	maxTokenLen = (maxRaw*8 + 5) / 6
)

// ErrBadToken is the answer to a token that is forged, damaged, too long, of another kind or agent, or signed with an unknown
// key. It does not say which, so as not to help whoever tries.
var ErrBadToken = errors.New("token is not valid")

// ErrExpiredToken is the answer to a genuine token whose time is up.
var ErrExpiredToken = errors.New("token has expired")

// Key signs tokens. Its ID travels in the token, so that keys can be rotated.
type Key struct {
	ID     string // 1 to 32 bytes
	Secret []byte // at least 16 bytes
}

// Keyring signs tokens with its first key and checks them with any. It is safe for concurrent use.
type Keyring struct {
	first *ringKey
	byID  map[string]*ringKey
}

type ringKey struct {
	id            string
	pin, override sync.Pool // of *signer
}

// signer is a MAC with its scratch space: kept in a pool, so that checking a token allocates nothing.
type signer struct {
	mac hash.Hash
	raw [maxRaw]byte
	sum [sha256.Size]byte
}

// NewKeyring is a ring of keys, the first of which signs. Errors: no key, a doubled or overlong id, a secret that is too short.
func NewKeyring(keys ...Key) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("keyring has no key: want at least one")
	}
	ring := &Keyring{byID: make(map[string]*ringKey, len(keys))}
	for _, k := range keys {
		switch {
		case k.ID == "" || len(k.ID) > maxKeyID:
			return nil, fmt.Errorf("key id %q: want 1 to %d bytes", k.ID, maxKeyID)
		case len(k.Secret) < minSecret:
			return nil, fmt.Errorf("secret of key %q has %d bytes: want at least %d", k.ID, len(k.Secret), minSecret)
		case ring.byID[k.ID] != nil:
			return nil, fmt.Errorf("key id %q is there twice", k.ID)
		}
		rk := &ringKey{id: k.ID}
		rk.pin.New = newSigner(derive(k.Secret, "aviary pin 1"))
		rk.override.New = newSigner(derive(k.Secret, "aviary override 1"))
		ring.byID[k.ID] = rk
		if ring.first == nil {
			ring.first = rk
		}
	}
	return ring, nil
}

func derive(secret []byte, purpose string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

func newSigner(key []byte) func() any {
	return func() any { return &signer{mac: hmac.New(sha256.New, key)} }
}

func (k *ringKey) pool(kind byte) *sync.Pool {
	if kind == kindOverride {
		return &k.override
	}
	return &k.pin
}

// claims are what a token says.
type claims struct {
	agent, version string
	rollout        uint64 // the salt of the rollout whose canary the version was, or onStable
	epoch          uint64
	expiry         int64 // Unix seconds
	oldKey         bool  // read from a token that another key than the first has signed
	remembered     bool  // not from a token at all
}

// appendToken appends the signed text of c to dst.
func (k *Keyring) appendToken(dst []byte, kind byte, c claims) []byte {
	pool := k.first.pool(kind)
	s := pool.Get().(*signer)
	defer pool.Put(s)
	raw := append(s.raw[:0], kind, byte(len(k.first.id)))
	raw = append(raw, k.first.id...)
	raw = append(append(raw, byte(len(c.agent))), c.agent...)
	raw = append(append(raw, byte(len(c.version))), c.version...)
	raw = binary.BigEndian.AppendUint64(raw, c.rollout)
	raw = binary.BigEndian.AppendUint64(raw, c.epoch)
	raw = binary.BigEndian.AppendUint64(raw, uint64(c.expiry))
	raw = append(raw, s.sign(raw)...)
	return base64.RawURLEncoding.AppendEncode(dst, raw)
}

// sign is the MAC of payload, in the signer's scratch space.
func (s *signer) sign(payload []byte) []byte {
	s.mac.Reset()
	s.mac.Write(payload)
	return s.mac.Sum(s.sum[:0])[:macSize]
}

// tokenText is how a token is written. Strict: a token has one text only.
var tokenText = base64.RawURLEncoding.Strict()

// open checks token for agent. Known versions are looked up in versions, so that the claims' version allocates only when it is
// not there. Errors: ErrBadToken; ErrExpiredToken, with the claims.
func (k *Keyring) open(kind byte, agent, token string, versions map[string]*Version, now time.Time) (claims, error) {
	if len(token) > maxTokenLen {
		return claims{}, ErrBadToken
	}
	var text [maxTokenLen]byte
	var raw [maxRaw + 3]byte
	n, err := tokenText.Decode(raw[:], text[:copy(text[:], token)])
	if err != nil || n < 2+macSize || raw[0] != kind || base64.RawURLEncoding.EncodedLen(n) != len(token) { // the decoder skips line breaks
		return claims{}, ErrBadToken
	}
	payload, mac := raw[:n-macSize], raw[n-macSize:n]
	body := 2 + int(payload[1])
	if body > len(payload) {
		return claims{}, ErrBadToken
	}
	rk := k.first
	if id := payload[2:body]; string(id) != rk.id {
		rk = k.byID[string(id)]
	}
	if rk == nil || !rk.valid(kind, payload, mac) {
		return claims{}, ErrBadToken
	}
	c, ok := parseClaims(payload[body:], agent, versions)
	if !ok {
		return claims{}, ErrBadToken
	}
	c.oldKey = rk != k.first
	if now.Unix() >= c.expiry {
		return c, ErrExpiredToken
	}
	return c, nil
}

// valid reports whether mac is the key's of payload.
func (k *ringKey) valid(kind byte, payload, mac []byte) bool {
	pool := k.pool(kind)
	s := pool.Get().(*signer)
	ok := subtle.ConstantTimeCompare(s.sign(s.raw[:copy(s.raw[:], payload)]), mac) == 1
	pool.Put(s)
	return ok
}

// parseClaims reads what follows the key id. The agent must be the one asked about.
func parseClaims(b []byte, agent string, versions map[string]*Version) (claims, bool) {
	name, b, ok := cutName(b)
	if !ok || string(name) != agent {
		return claims{}, false
	}
	name, b, ok = cutName(b)
	if !ok || len(b) != 3*8 {
		return claims{}, false
	}
	c := claims{
		agent:   agent,
		rollout: binary.BigEndian.Uint64(b), epoch: binary.BigEndian.Uint64(b[8:]), expiry: int64(binary.BigEndian.Uint64(b[16:])),
	}
	if v := versions[string(name)]; v != nil {
		c.version = v.name
	} else {
		c.version = string(name)
	}
	return c, true
}

func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

// OverrideToken is a signed token that lets a tester force version of agent until expiry, in X-Canary-Token beside X-Canary.
func (k *Keyring) OverrideToken(agent, version string, expiry time.Time) string {
	return string(k.appendToken(nil, kindOverride, claims{agent: agent, version: version, expiry: expiry.Unix()}))
}

// CheckOverride reports which version a tester's token forces. Errors: ErrBadToken, ErrExpiredToken.
func (k *Keyring) CheckOverride(agent, token string, now time.Time) (version string, err error) {
	c, err := k.open(kindOverride, agent, token, nil, now)
	if err != nil {
		return "", err
	}
	return c.version, nil
}
