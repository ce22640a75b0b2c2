// The operators on the CPU that operators.cpp registers, but for the recurrence's
// (recurrence_op.h): arguments as in their schemas.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "tensor.h"

namespace sru {

class Decoder;
class PackedMatrix;

std::tuple<Tensor, Tensor, Tensor> cross_entropy(
    const Tensor& logits, const Tensor& target, int64_t ignored);
Tensor cross_entropy_backward(
    const Tensor& grad_nll, const Tensor& grad_mean_nll, const Tensor& logits, const Tensor& target,
    const Tensor& parts, int64_t ignored);
std::tuple<Tensor, Tensor, Tensor> divergence(const Tensor& p, const Tensor& q);
std::tuple<Tensor, Tensor> divergence_backward(
    const Tensor& grad, const Tensor& p, const Tensor& q, const Tensor& kl, const Tensor& parts_p,
    const Tensor& parts_q);

Tensor dropout(const Tensor& in, double p, int64_t seed);

Tensor few_rows(const Tensor& x, const Tensor& weight, const OptionalTensor& bias);

Tensor step_attention(
    const Tensor& q, const Tensor& keys_values, const Tensor& mask, double alpha, int64_t heads);

std::vector<std::string> packed_isas(at::ScalarType dtype);
Tensor packed_product(const PackedMatrix& matrix, const Tensor& x, const OptionalTensor& bias);

Tensor decoder_logits(
    const Decoder& decoder, const Tensor& source, const Tensor& lengths, const Tensor& tokens);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> search_sentences(
    const Decoder& decoder, const Tensor& source, const Tensor& ids, const Tensor& lengths,
    const Tensor& max_lengths, const Tensor& prefix, const Tensor& prefix_lengths, int64_t beam,
    int64_t min_length, int64_t no_repeat_ngram, double length_penalty, double unk_penalty,
    double temperature, bool normalise, bool align, int64_t pad, int64_t unk, int64_t eos,
    int64_t bos, int64_t rows, bool sample, int64_t top_k, double top_p, int64_t seed);

}  // namespace sru
