// The sign-in page: a warning where the password would travel in the clear, and one press of the button.
'use strict';
(() => {
  if (!window.isSecureContext) document.getElementById('insecure-login-warning').classList.remove('hidden');
  const button = document.getElementById('login_submit');
  if (!button) return;
  button.form.addEventListener('submit', () => {
    button.disabled = true;
  });
  // Back from the next page: the browser shows this one as it was left.
  window.addEventListener('pageshow', () => {
    button.disabled = false;
  });
})();
