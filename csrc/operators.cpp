// Schemas of the operators, their implementations on the CPU, and which derivatives they have. What
// PyTorch needs for it takes longer to compile than most kernels, hence one file for all.
#include "operators.h"

#include <torch/custom_class.h>
#include <torch/library.h>

#include "decoder.h"
#include "derivatives.h"
#include "recurrence_op.h"

namespace {

// An object of ours that Python holds.
template <typename T>
struct Held : torch::CustomClassHolder, T {
  using T::T;
};

// An operator on what is held.
template <auto function>
struct OnHeld;

template <typename R, typename T, typename... Rest, R (*function)(const T&, Rest...)>
struct OnHeld<function> {
  static R call(const c10::intrusive_ptr<Held<T>>& held, Rest... rest) {
    return function(*held, rest...);
  }
};

using HeldMatrix = Held<sru::PackedMatrix>;
using HeldDecoder = Held<sru::Decoder>;

template <typename V>
std::map<std::string, V> as_map(const c10::Dict<std::string, V>& dict) {
  std::map<std::string, V> map;
  for (const auto& item : dict) {
    map.emplace(item.key(), item.value());
  }
  return map;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fairseq_sru, m) {
  m.def(R"(recurrence(
      Tensor u, Tensor? x, Tensor? weight_c, Tensor bias, Tensor? c0, Tensor? pad, Tensor? mask_c,
      float scale, bool bidirectional, bool save_c) -> (Tensor h, Tensor c_last, Tensor c))");
  m.def(R"(recurrence_backward(
      Tensor grad_h, Tensor grad_c_last, Tensor u, Tensor? x, Tensor? weight_c, Tensor bias,
      Tensor? c0, Tensor? pad, Tensor? mask_c, Tensor c, float scale, bool bidirectional) -> (
      Tensor grad_u, Tensor grad_x, Tensor grad_weight_c, Tensor grad_bias, Tensor grad_c0,
      Tensor grad_mask_c))");

  m.def("dropout(Tensor input, float p, int seed) -> Tensor");

  m.def("cross_entropy(Tensor logits, Tensor target, int ignored) -> (Tensor, Tensor, Tensor)");
  m.def(
      "cross_entropy_backward(Tensor grad_nll, Tensor grad_mean_nll, Tensor logits, "
      "Tensor target, Tensor parts, int ignored) -> Tensor");
  m.def("divergence(Tensor p, Tensor q) -> (Tensor, Tensor, Tensor)");
  m.def(
      "divergence_backward(Tensor grad, Tensor p, Tensor q, Tensor kl, Tensor parts_p, "
      "Tensor parts_q) -> (Tensor, Tensor)");

  m.def("few_rows(Tensor x, Tensor weight, Tensor? bias) -> Tensor");

  m.def(R"(step_attention(
      Tensor q, Tensor keys_values, Tensor mask, float alpha, int heads) -> Tensor)");

  m.class_<HeldMatrix>("PackedMatrix")
      .def(torch::init<const at::Tensor&, const std::optional<at::Tensor>&, const std::string&>());
  m.def("packed_isas(ScalarType dtype) -> str[]", &sru::packed_isas);
  m.def(R"(packed_product(
      __torch__.torch.classes.fairseq_sru.PackedMatrix matrix, Tensor x, Tensor? bias) -> Tensor)");

  m.class_<HeldDecoder>("Decoder")
      .def(torch::init([](const c10::Dict<std::string, at::Tensor>& weights,
                          const c10::Dict<std::string, double>& options, const std::string& isa) {
        return c10::make_intrusive<HeldDecoder>(as_map(weights), as_map(options), isa);
      }))
      .def("source_size", [](const c10::intrusive_ptr<HeldDecoder>& decoder) {
        return decoder->source_size();
      });
  m.def(R"(decoder_logits(
      __torch__.torch.classes.fairseq_sru.Decoder decoder, Tensor source, Tensor lengths,
      Tensor tokens) -> Tensor)");

  m.def(R"(search(
      __torch__.torch.classes.fairseq_sru.Decoder decoder, Tensor source, Tensor ids,
      Tensor lengths, Tensor max_lengths, Tensor prefix, Tensor prefix_lengths, *, int beam, int min_length,
      int no_repeat_ngram, float length_penalty, float unk_penalty, float temperature,
      bool normalise, bool align, int pad, int unk, int eos, int bos, int rows, bool sample,
      int top_k, float top_p, int seed) -> (
      Tensor counts, Tensor token_counts, Tensor tokens, Tensor token_scores, Tensor scores,
      Tensor alignments))");
}

TORCH_LIBRARY_IMPL(fairseq_sru, CPU, m) {
  m.impl("recurrence", &sru::recurrence<sru::Cpu>);
  m.impl("recurrence_backward", &sru::recurrence_backward<sru::Cpu>);
  m.impl("dropout", &sru::dropout);
  m.impl("cross_entropy", &sru::cross_entropy);
  m.impl("cross_entropy_backward", &sru::cross_entropy_backward);
  m.impl("divergence", &sru::divergence);
  m.impl("divergence_backward", &sru::divergence_backward);
  m.impl("few_rows", &sru::few_rows);
  m.impl("step_attention", &sru::step_attention);
  m.impl("packed_product", &OnHeld<&sru::packed_product>::call);
  m.impl("decoder_logits", &OnHeld<&sru::decoder_logits>::call);
  m.impl("search", &OnHeld<&sru::search_sentences>::call);
}

TORCH_LIBRARY_IMPL(fairseq_sru, ADInplaceOrView, m) {
  for (const char* name : {"dropout", "recurrence", "recurrence_backward"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&sru::backward_mode>());
  }
}

TORCH_LIBRARY_IMPL(fairseq_sru, Autograd, m) {
  for (const char* name :
       {"cross_entropy", "cross_entropy_backward", "decoder_logits", "divergence",
        "divergence_backward", "few_rows", "packed_product", "search", "step_attention"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&sru::no_derivative>());
  }
}
