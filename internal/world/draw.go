package world

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"
)

// poisson draws a number of events with a mean of 0 or more.
func poisson(rng *rand.Rand, mean float64) float64 {
	if mean <= 0 {
		return 0
	}
	if mean < direct { // as distuv does, without its generator made for each draw
		k := 0.0
		for t := rng.ExpFloat64(); t < mean; t += rng.ExpFloat64() {
			k++
		}
		return k
	}
	return distuv.Poisson{Lambda: mean, Src: rng}.Rand()
}

const direct = 10 // events below which counting their waiting times is fastest

// binomial draws how many of n trials have an event of probability p. Below a few events it counts the waiting times between them:
// ⌊Exp(1)/−ln(1−p)⌋ trials without one is their geometric distribution.
func binomial(rng *rand.Rand, n, p float64) float64 {
	switch {
	case n <= 0 || p <= 0:
		return 0
	case p >= 1:
		return n
	case p > 0.5:
		return n - binomial(rng, n, 1-p)
	case n*p >= 2*direct:
		return distuv.Binomial{N: n, P: p, Src: rng}.Rand()
	}
	log := -math.Log1p(-p)
	k := 0.0
	for at := math.Floor(rng.ExpFloat64() / log); at < n; at += 1 + math.Floor(rng.ExpFloat64()/log) {
		k++
	}
	return k
}

// multinomial puts n observations into cells whose cumulated shares are cdf, rising to 1, and adds them to out. Most of them are put there by
// drawing each cell from Poisson: given their sum, such cells are multinomial, whatever the sum. The rest are put there one by one.
func multinomial(rng *rand.Rand, n float64, cdf, out []float64) {
	if bulk := n - 4*math.Sqrt(n); 2*bulk > float64(len(cdf)) {
		sum := math.Inf(1)
		for sum > n { // which says nothing of where they are
			sum = 0
			low := 0.0
			for i, high := range cdf {
				out[i] = poisson(rng, bulk*(high-low))
				sum += out[i]
				low = high
			}
		}
		n -= sum
	}
	for ; n > 0; n-- {
		u := rng.Float64()
		low, high := 0, len(cdf)-1
		for low < high { // the first cell that ends above u
			if mid := (low + high) / 2; u < cdf[mid] {
				high = mid
			} else {
				low = mid + 1
			}
		}
		out[low]++
	}
}

// bursts draws the sum of k geometric sizes from 1 on with a mean of size: k and a negative binomial, which is a Poisson of a gamma.
func bursts(rng *rand.Rand, k, size float64) float64 {
	if k <= 0 || size <= 1 {
		return k
	}
	return k + poisson(rng, gamma(rng, k, size-1))
}

// gamma draws from the gamma distribution of a shape and scale above 0.
func gamma(rng *rand.Rand, shape, scale float64) float64 {
	return distuv.Gamma{Alpha: shape, Beta: 1 / scale, Src: rng}.Rand()
}

// sumOf draws the sum of n amounts with a mean and coefficient of variation. Gamma amounts are summed up at once.
func sumOf(rng *rand.Rand, shape Shape, n, mean, cv float64) float64 {
	switch {
	case n <= 0 || mean <= 0:
		return 0
	case cv <= 0:
		return n * mean
	case shape != Lognormal:
		return gamma(rng, n/(cv*cv), mean*cv*cv)
	}
	sigma := math.Sqrt(math.Log1p(cv * cv))
	sum := 0.0
	for range int(n) {
		sum += math.Exp(sigma*rng.NormFloat64() - sigma*sigma/2)
	}
	return sum * mean
}

// sumOfRatings draws the sum of n ratings from 1 to len(shares), of which a share is replaced by the worst or the best so that their mean,
// which is mean as they are, is factor times that.
func sumOfRatings(rng *rand.Rand, shares []float64, n, mean, factor float64) float64 {
	most := float64(len(shares))
	replaced := 0.0
	if factor < 1 {
		replaced = binomial(rng, n, min(1, mean*(1-factor)/(mean-1)))
	} else if factor > 1 {
		replaced = binomial(rng, n, min(1, mean*(factor-1)/(most-mean)))
	}
	sum := replaced
	if factor > 1 {
		sum *= most
	}
	left, rest := n-replaced, 1.0
	for i, share := range shares {
		k := left
		if i < len(shares)-1 {
			k = binomial(rng, left, min(1, share/rest))
		}
		sum += k * float64(i+1)
		left -= k
		rest -= share
	}
	return sum
}
