# No CORS: no other site's scripts are meant to call it from a browser.
resource "aws_lambda_function_url" "live" {
  count = var.url_auth == "OFF" ? 0 : 1

  function_name      = aws_lambda_function.this.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = var.url_auth
}

# AWS_IAM needs no permission here: inside the account the caller's own policy is enough. NONE needs two.
resource "aws_lambda_permission" "public_url" {
  count = var.url_auth == "NONE" ? 1 : 0

  # Not the statement that the provider adds by itself when it creates a public URL (but not when it makes one public).
  statement_id           = "PublicUrl"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.this.function_name
  qualifier              = aws_lambda_alias.live.name
  principal              = "*"
  function_url_auth_type = "NONE"
}

# New URLs also need lambda:InvokeFunction. aws_lambda_permission cannot limit it to calls through the URL (it can from
# provider 6.29 on); without that limit every AWS account could invoke the function past the URL. Cloud Control can.
resource "aws_cloudcontrolapi_resource" "public_invoke" {
  count = length(aws_lambda_permission.public_url)

  type_name = "AWS::Lambda::Permission"
  desired_state = jsonencode({
    FunctionName          = aws_lambda_alias.live.arn
    Action                = "lambda:InvokeFunction"
    Principal             = "*"
    InvokedViaFunctionUrl = true
  })
}
