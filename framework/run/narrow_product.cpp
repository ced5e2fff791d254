#include "run/narrow_product.h"

#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sink : torch::CustomClassHolder {
  explicit Sink(std::function<void(at::Tensor)> f) : take(std::move(f)) {}
  std::function<void(at::Tensor)> take;
};

at::Tensor rows(const at::Tensor& t) { return t.reshape({-1, t.size(-1)}); }

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const c10::intrusive_ptr<Sink>& sink) {
    context->save_for_backward({x, weight});
    context->saved_data["sink"] = c10::IValue::make_capsule(sink);
    return at::matmul(x, weight.to(x.scalar_type()));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], slope = rows(gradients[0]);
    at::Tensor of_x;
    if (x.requires_grad()) of_x = at::mm(slope, weight.to(x.scalar_type()).t()).view(x.sizes());
    const auto capsule = context->saved_data["sink"].toCapsule();
    static_cast<Sink&>(*capsule).take(at::mm(rows(x).t(), slope));
    return {of_x, {}, {}};
  }
};

}  // namespace

at::Tensor narrow_product(const at::Tensor& x, const at::Tensor& weight, std::function<void(at::Tensor)> gradient) {
  return Product::apply(x, weight, c10::make_intrusive<Sink>(std::move(gradient)));
}

}  // namespace espalier
